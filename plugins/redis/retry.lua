-- Submit the call of a task that has ended FAILED or CANCELLED once more, as a new task.
-- ARGV: prefix, id, new id. Returns '' (unknown or expired), the id (it has not ended so), or the new id.
local COPIED = { 'fn', 'pl', 'pr', 'max', 'ttl', 'tmo', 'bof', 'ron', 'grp', 'tag', 'plb' }
local old, new = ARGV[2], ARGV[3]
if call('EXISTS', P .. 't:' .. new) == 1 then
  return new
end
local v = call('HMGET', P .. 't:' .. old, 'st', 'exp', unpack(COPIED))
if not v[1] or (v[2] and tonumber(v[2]) <= now) then
  return ''
end
if v[1] ~= 'FAILED' and v[1] ~= 'CANCELLED' then
  return old
end
local h = { 'st', 'QUEUED', 'sub', NOW, 'rof', old }
for i, field in ipairs(COPIED) do
  if v[i + 2] then
    h[#h + 1] = field
    h[#h + 1] = v[i + 2]
  end
end
if v[13] and call('COPY', payload_key(old), payload_key(new)) == 0 then
  return '' -- a large payload is there as long as its record, unless somebody else has deleted it
end
call('HSET', P .. 't:' .. new, unpack(h))
call('RPUSH', P .. 'q:' .. v[5], new)
call('SADD', P .. 'levels', v[5])
call('ZADD', P .. 'index', 0, new)
if v[11] then
  call('ZADD', P .. 'g:' .. v[11], 0, new)
end
bell, waits = true, 1
flush()
return new
