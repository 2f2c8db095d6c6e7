#!lua flags=allow-oom
-- Write terminal records, each fenced by its attempt.
-- ARGV: prefix, dispatcher, '1' if the results have keys of their own, then for each: id, attempt, status, cause, result
-- (its size, if it has a key), error, run_s ('' unknown)
-- Returns 1 (written, now or before), 0 (stale or gone) or 2 (nothing done: its result is not in its key) for each.
local large = ARGV[3] == '1'
local reply = {}
for i = 4, #ARGV, 7 do
  local id, attempt, status, cause = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local v = call('HMGET', P .. 't:' .. id, 'st', 'att', 'own', 'liv', 'ttl', 'cxl', 'cau')
  local current = (v[2] or '0') == attempt
  local result = large and tonumber(ARGV[i + 4]) or ARGV[i + 4]
  local done = 0
  if v[1] and current then
    local live = v[4] == '1'
    if TERMINAL[v[1]] then
      if v[1] == status and v[7] == cause then
        done = 1
      end
    elseif large and not keep(result_key(id, attempt), result) then
      done = 2
    elseif live or call('HDEL', P .. 'claims:' .. ARGV[2], id) == 1 then
      -- A live attempt may be finished by whoever hears of it; one not started only by the dispatcher that holds it.
      done = 1
      local field = live and 'E' .. attempt
      local value = live and NOW .. '|' .. cause .. '|' .. ARGV[i + 6]
      conclude(id, v[5], status, cause, result, ARGV[i + 5], field, value)
      if live then
        later('HDEL', P .. 'claims:' .. v[3], id)
      end
      if live and v[6] then
        later('SREM', P .. 'cancels:' .. v[3], id)
      end
    end
  end
  if large and done == 0 and not (current and TERMINAL[v[1]]) then
    call('UNLINK', result_key(id, attempt)) -- it will never be anybody's
  end
  reply[#reply + 1] = done
end
expire(2 * #reply) -- keeps pace with what is written, whatever the rate
flush()
return reply
