#!lua flags=allow-oom
-- A dispatcher goes: what it claimed and did not start is queued again; what runs is left to the next sweep.
-- ARGV: prefix, dispatcher, how many claims are looked at
local name = orphan(ARGV[2])
call('DEL', P .. 'evicted:' .. ARGV[2])
if name then
  local key = P .. 'claims:' .. name
  local held = call('HRANDFIELD', key, ARGV[3], 'WITHVALUES')
  local found = {}
  for i = 1, #held, 2 do
    if string.sub(held[i + 1], 1, 1) == 'c' then
      found[#found + 1] = held[i]
    end
  end
  table.sort(found) -- ids are ordered by time
  for _, id in ipairs(found) do
    local v = call('HMGET', P .. 't:' .. id, 'st', 'pr', 'dl')
    if v[1] and not TERMINAL[v[1]] then
      put_back(id, v[2], v[3], 0, {})
    end
    later('HDEL', key, id)
  end
  flush()
  if call('EXISTS', key) == 0 then
    call('ZREM', P .. 'dispatchers', name)
  end
end
return 1
