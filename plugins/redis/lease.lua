#!lua flags=allow-oom
-- A dispatcher shows that it lives, and hears what it has to know: whether it was evicted, and what was asked of it.
-- ARGV: prefix, dispatcher, turn's number, tag, lease_ms, '1' if it reports ('' if it only claims or sweeps), report,
-- slots, cancels at most, '1' if it has had a lease before, ms for which a drain outlives the last report of its worker
-- Returns {evicted, {task to cancel, …}, {worker to drain, …}}. Repeated under one tag it answers the same; a new tag
-- says that the answer arrived.
local D, tag = ARGV[2], ARGV[4]
if is_stale(D, ARGV[3]) then
  return { 0, {}, {} }
end
local key = P .. 'evicted:' .. D
local mark = call('GET', key)
-- A lease only goes when it is taken away, which leaves a mark: without one, the store was flushed, claims and all.
local flushed = not mark and ARGV[10] == '1' and not call('ZSCORE', P .. 'dispatchers', D)
local evicted = 0
if mark == '' or mark == tag or flushed then
  evicted = 1
  call('SET', key, tag, 'EX', 86400)
elseif mark then
  call('DEL', key)
end

local drains = {}
local function hear_drains()
  local asked = call('ZRANGE', P .. 'drains', 0, -1)
  if #asked == 0 then
    return
  end
  local here = workers_in(ARGV[7])
  for _, worker in ipairs(asked) do
    if here[worker] then
      drains[#drains + 1] = worker
      call('ZADD', P .. 'drains', now, worker)
    end
  end
  call('ZREMRANGEBYSCORE', P .. 'drains', '-inf', now - ARGV[11])
end

if ARGV[6] == '1' then
  call('ZADD', P .. 'dispatchers', now + ARGV[5], D)
  call('HSET', P .. 'fleet:' .. D, 'r', ARGV[7], 'n', ARGV[8])
  hear_drains()
else
  call('ZADD', P .. 'dispatchers', 'NX', now + ARGV[5], D) -- so that no claim is ever without a lease
end
return { evicted, call('SRANDMEMBER', P .. 'cancels:' .. D, ARGV[9]), drains }
