#!lua flags=allow-oom
-- Give queued tasks to a dispatcher: most urgent first, but one pick of eight goes to the least urgent.
-- ARGV: prefix, dispatcher, turn's number, tag, lease tag, '1' if the last answer under this tag may not have arrived,
-- count, bytes_max, result and error of a deadline.
-- Returns {ms until the next delayed task (-1 none), what `describe` gives of each task, …}.
local SHARE = 8
local SCAN_MAX = 2000 -- queue entries that one call looks at beyond those it was asked for
local D, tag = ARGV[2], 'c' .. ARGV[4] .. '|'
local count, bytes_max = tonumber(ARGV[7]), tonumber(ARGV[8])
local claims = P .. 'claims:' .. D
local mark = call('GET', P .. 'evicted:' .. D)
if mark == '' or mark == ARGV[5] or is_stale(D, ARGV[3]) then
  return { 0 } -- it is being told to forget all it holds: the next turn may claim
end

local rows, got, bytes = {}, 0, 0
if ARGV[6] == '1' then
  local held = call('HGETALL', claims)
  for i = 1, #held, 2 do
    local v = string.sub(held[i + 1], 1, #tag) == tag and call('HMGET', P .. 't:' .. held[i], unpack(HELD))
    if v and v[10] and not TERMINAL[v[10]] then
      got = got + 1
      describe(rows, held[i], v)
    end
  end
end

local due = promote()
local length, total, low, high = {}, 0, LEVELS + 1, -1
for _, level in ipairs(call('SMEMBERS', P .. 'levels')) do
  level = tonumber(level)
  length[level] = call('LLEN', P .. 'q:' .. level)
  total = total + length[level]
  low, high = math.min(low, level), math.max(high, level)
end
local picks = low < high and tonumber(call('GET', P .. 'picks') or 0) or 0
local before = picks
local scan = count - got + SCAN_MAX
local full = false

-- Claim one entry of a queue, unless the task has ended, or is out of time.
local function take(id)
  local v = call('HMGET', P .. 't:' .. id, unpack(HELD))
  if not v[10] or TERMINAL[v[10]] then
    return
  end
  waits = waits - 1
  if v[9] then
    later('ZREM', P .. 'deadlines', id)
    if tonumber(v[9]) <= now then
      conclude(id, v[12], 'FAILED', 'deadline', ARGV[9], ARGV[10])
      return
    end
  end
  later('HSET', claims, id, tag .. NOW .. '|' .. (v[3] or '0') .. '|' .. (v[9] or ''))
  describe(rows, id, v)
  got = got + 1
  bytes = bytes + size_of(v)
end

local function pop(level, most)
  local ids = call('LPOP', P .. 'q:' .. level, most)
  for i, id in ipairs(ids) do
    take(id)
    if bytes >= bytes_max and i < #ids then
      for back = #ids, i + 1, -1 do
        call('LPUSH', P .. 'q:' .. level, ids[back])
      end
      return i
    end
  end
  return #ids
end

while got < count and total > 0 and scan > 0 and not full do
  while (length[low] or 0) == 0 do low = low + 1 end
  while (length[high] or 0) == 0 do high = high - 1 end
  local level, run = high, math.min(count - got, scan)
  if low ~= high then
    local turn = picks % SHARE
    if turn == SHARE - 1 then
      level, run = low, 1
    else
      run = math.min(run, SHARE - 1 - turn)
    end
  end
  local used = pop(level, math.min(run, length[level]))
  full = bytes >= bytes_max
  length[level] = length[level] - used
  total = total - used
  scan = scan - used
  if low ~= high then
    picks = picks + used
  end
end

for level, rest in pairs(length) do
  if rest == 0 then
    call('SREM', P .. 'levels', level)
  end
end
if picks ~= before then
  call('SET', P .. 'picks', picks % SHARE)
end
bell = bell and total > 0
flush()
if got < count and total > 0 then
  due = 0 -- stopped by a limit of this call: ask again
elseif got < count then
  call('SADD', P .. 'waiting', D)
end
table.insert(rows, 1, due)
return rows
