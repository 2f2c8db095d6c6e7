#!lua flags=allow-oom
-- Move the claims of attempts to the dispatcher that their workers have presented them to, whoever holds them now.
-- ARGV: prefix, dispatcher, turn's number, lease tag, then for each: id, attempt, worker, epoch of the worker's Hello
-- Returns for each what `describe` gives, or false: that attempt is not live on that worker, or it has moved on since.
local D = ARGV[2]
local reply = {}
local mark = call('GET', P .. 'evicted:' .. D)
local refused = mark == '' or mark == ARGV[4] or is_stale(D, ARGV[3]) -- it forgets, or has forgotten, what it is given

-- Where the claim of a task is: with its owner, or with what a dead one left and nobody has swept yet.
local function place_of(owner, id)
  local key = P .. 'claims:' .. owner
  if call('HEXISTS', key, id) == 0 then
    for _, name in ipairs(call('ZRANGE', P .. 'dispatchers', 0, 0, 'BYSCORE')) do
      if call('HEXISTS', P .. 'claims:' .. name, id) == 1 then
        return P .. 'claims:' .. name
      end
    end
  end
  return key
end

for i = 5, #ARGV, 4 do
  local id, attempt, worker, epoch = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  local v = not refused and call('HMGET', P .. 't:' .. id, unpack(HELD)) or {}
  local row = false
  if v[10] and not TERMINAL[v[10]] and v[13] == '1' and v[3] == attempt and epoch >= epoch_of(id, attempt) then
    local timeline = call('HGET', P .. 't:' .. id, 'S' .. attempt) or ''
    local place = place_of(v[11], id)
    if string.match(timeline, '^%d+|%d+|(.*)$') == worker and call('HGET', place, id) ~= 'b' then
      call('HDEL', place, id)
      call('HSET', P .. 'claims:' .. D, id, 'w' .. worker)
      call('HSET', P .. 't:' .. id, 'own', D, 'epo', attempt .. ':' .. ARGV[i + 3])
      if v[14] then
        call('SREM', P .. 'cancels:' .. v[11], id)
        call('SADD', P .. 'cancels:' .. D, id)
      end
      row = {}
      describe(row, id, v)
    end
  end
  reply[#reply + 1] = row
end
return reply
