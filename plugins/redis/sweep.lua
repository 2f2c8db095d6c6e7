#!lua flags=allow-oom
-- Housekeeping that any dispatcher does for all, each part bounded: promote, expire, take over from the dead.
-- ARGV: prefix, dispatcher, turn's number, tag, lease tag, '1' if the last answer under this tag may not have arrived,
-- limit of each part, bytes_max, then result and error of: a deadline, a lost dispatcher, a cancel; then dispatchers
-- known to be dead, whatever is left of their lease.
-- Returns {ms until the next delayed task (-1 none), worker, its epoch and what `describe` gives of each adopted task, …}.
local DEAD_MAX = 16
local BACKOFF_MS_MAX = 3600 * 1000
local D, tag = ARGV[2], 'a' .. ARGV[4] .. ' '
local limit, bytes_max = tonumber(ARGV[7]), tonumber(ARGV[8])
local claims = P .. 'claims:' .. D
local rows, bytes = {}, 0

local function adopted(id, worker, v)
  rows[#rows + 1] = worker
  rows[#rows + 1] = tostring(epoch_of(id, v[3]))
  describe(rows, id, v)
  bytes = bytes + size_of(v)
end

local function adopt(id, worker, v)
  call('HSET', P .. 't:' .. id, 'own', D)
  later('HSET', claims, id, tag .. worker)
  if v[14] then
    call('SREM', P .. 'cancels:' .. v[11], id)
    call('SADD', P .. 'cancels:' .. D, id)
  end
  adopted(id, worker, v)
end

-- What ran on a bound worker died with its dispatcher: an attempt used up.
local function bury(id, v)
  local attempt, charged = v[3] or '0', (v[4] or 0) + 1
  local field, value = 'E' .. attempt, now .. '|dispatcher_lost|'
  if v[14] then
    call('SREM', P .. 'cancels:' .. v[11], id)
    conclude(id, v[12], 'CANCELLED', 'cancelled', ARGV[13], ARGV[14], field, value)
  elseif charged >= tonumber(v[6]) then
    conclude(id, v[12], 'FAILED', 'dispatcher_lost', ARGV[11], ARGV[12], field, value)
    call('HSET', P .. 't:' .. id, 'chg', charged)
  else
    local wait_ms = math.ceil(math.min(tonumber(v[7] or 0) * 1000 * 2 ^ math.min(charged - 1, 30), BACKOFF_MS_MAX))
    put_back(id, v[5], v[9], wait_ms, { 'chg', charged, field, value })
  end
end

local function take_over(name)
  local key = P .. 'claims:' .. name
  local held = call('HRANDFIELD', key, limit, 'WITHVALUES')
  local found = {}
  for i = 1, #held, 2 do
    found[#found + 1] = { held[i], held[i + 1] }
  end
  table.sort(found, function(x, y) return x[1] < y[1] end) -- ids are ordered by time
  for _, item in ipairs(found) do
    if bytes >= bytes_max then
      break
    end
    local id, claim = item[1], item[2]
    local v = call('HMGET', P .. 't:' .. id, unpack(HELD))
    local kind = string.sub(claim, 1, 1)
    if v[10] and not TERMINAL[v[10]] then
      if kind == 'c' then
        put_back(id, v[5], v[9], 0, {})
      elseif kind == 'b' then
        bury(id, v)
      else
        adopt(id, kind == 'w' and string.sub(claim, 2) or string.match(claim, ' (.*)'), v)
      end
    end
    later('HDEL', key, id)
  end
  limit = limit - #found
end

local due = promote()

local late = call('ZRANGE', P .. 'deadlines', '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
for _, id in ipairs(late) do
  local v = call('HMGET', P .. 't:' .. id, 'st', 'ttl')
  later('ZREM', P .. 'deadlines', id)
  if v[1] and not TERMINAL[v[1]] then
    conclude_free(id, v[2], nil, 'FAILED', 'deadline', ARGV[9], ARGV[10])
  end
end

expire(limit)

local mark = call('GET', P .. 'evicted:' .. D)
-- One that is being told to forget all it holds must not be given more.
if mark ~= '' and mark ~= ARGV[5] and not is_stale(D, ARGV[3]) then
  if ARGV[6] == '1' then
    local held = call('HGETALL', claims)
    for i = 1, #held, 2 do
      local v = string.sub(held[i + 1], 1, #tag) == tag and call('HMGET', P .. 't:' .. held[i], unpack(HELD))
      if v and v[10] and not TERMINAL[v[10]] then
        adopted(held[i], string.sub(held[i + 1], #tag + 1), v)
      end
    end
  end
  local dead = call('ZRANGE', P .. 'dispatchers', 1, now, 'BYSCORE', 'LIMIT', 0, DEAD_MAX)
  for i = 15, #ARGV do
    if tonumber(call('ZSCORE', P .. 'dispatchers', ARGV[i]) or 0) > now then
      dead[#dead + 1] = ARGV[i]
    end
  end
  for _, name in ipairs(dead) do
    if name ~= D then
      call('SET', P .. 'evicted:' .. name, '', 'EX', 86400)
      orphan(name)
    end
  end
  for _, name in ipairs(call('ZRANGE', P .. 'dispatchers', 0, 0, 'BYSCORE', 'LIMIT', 0, DEAD_MAX)) do
    if limit > 0 and bytes < bytes_max then
      take_over(name)
    end
  end
end
flush()
for _, name in ipairs(call('ZRANGE', P .. 'dispatchers', 0, 0, 'BYSCORE', 'LIMIT', 0, DEAD_MAX)) do
  if call('EXISTS', P .. 'claims:' .. name) == 0 then
    call('ZREM', P .. 'dispatchers', name)
  end
end
table.insert(rows, 1, next_due())
return rows
