#!lua flags=allow-oom
-- Store attempts as RUNNING, if this dispatcher holds the task and it has time left. One that was cancelled before is
-- held by nobody any more. What has to be known of a task stands in its claim, so that its hash need not be read.
-- ARGV: prefix, dispatcher, turn's number, attempts kept, result and error of a deadline, then for each: id, attempt,
-- worker, bound ('1' or ''), epoch. Returns 1 (stored, now or before) or 0 (drop it) for each.
local EACH = 5
local D = ARGV[2]
local claims = P .. 'claims:' .. D
local held = {} -- what the claims say, read in few calls
for first = 7, #ARGV, EACH * 500 do
  local ids = {}
  for i = first, math.min(first + EACH * 500 - 1, #ARGV), EACH do
    ids[#ids + 1] = ARGV[i]
  end
  for _, claim in ipairs(call('HMGET', claims, unpack(ids))) do
    held[#held + 1] = claim
  end
end

local function end_late(id)
  later('HDEL', claims, id)
  conclude(id, call('HGET', P .. 't:' .. id, 'ttl'), 'FAILED', 'deadline', ARGV[5], ARGV[6])
end

local function run(id, attempt, worker, bound, leased, epoch)
  local running = bound and 'b' or 'w' .. worker
  local timeline = leased .. '|' .. NOW .. '|' .. worker
  local presented = attempt .. ':' .. epoch
  call('HSET', P .. 't:' .. id, 'st', 'RUNNING', 'own', D, 'att', attempt, 'liv', '1', 'epo', presented, 'S' .. attempt, timeline)
  later('HSET', claims, id, running)
  local old = attempt - tonumber(ARGV[4])
  if old > 0 then
    call('HDEL', P .. 't:' .. id, 'S' .. old, 'E' .. old)
  end
end

local reply, seen = {}, {}
if is_stale(D, ARGV[3]) then
  held = {}
end
for i = 7, #ARGV, EACH do
  local id, attempt, worker, bound = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3] == '1'
  local claim = held[(i - 7) / EACH + 1]
  local done = 0
  if claim and not seen[id] then
    seen[id] = true
    local leased, last, deadline = string.match(claim, '^c[^|]*|(%d+)|(%d+)|(%d*)$')
    if not leased then -- it runs: perhaps by this very call, made again
      if claim == (bound and 'b' or 'w' .. worker) then
        done = call('HGET', P .. 't:' .. id, 'att') == ARGV[i + 1] and 1 or 0
      end
    elseif deadline ~= '' and tonumber(deadline) <= now then
      end_late(id)
    elseif attempt == last + 1 then
      done = 1
      run(id, ARGV[i + 1], worker, bound, leased, ARGV[i + 4])
    end
  end
  reply[#reply + 1] = done
end
flush()
return reply
