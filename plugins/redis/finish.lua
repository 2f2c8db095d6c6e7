#!lua flags=allow-oom
-- Write terminal records, each fenced by its attempt.
-- ARGV: prefix, dispatcher, then for each: id, attempt, status, cause, result, error, run_s ('' unknown)
-- Returns 1 (written, now or before) or 0 (stale or gone) for each.
local reply = {}
for i = 3, #ARGV, 7 do
  local id, attempt, status, cause = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local v = call('HMGET', P .. 't:' .. id, 'st', 'att', 'own', 'liv', 'ttl', 'cxl', 'cau')
  local current = (v[2] or '0') == attempt
  local done = 0
  if v[1] and current then
    local live = v[4] == '1'
    if TERMINAL[v[1]] then
      if v[1] == status and v[7] == cause then
        done = 1
      end
    elseif live or call('HDEL', P .. 'claims:' .. ARGV[2], id) == 1 then
      -- A live attempt may be finished by whoever hears of it; one not started only by the dispatcher that holds it.
      done = 1
      local field = live and 'E' .. attempt
      local value = live and NOW .. '|' .. cause .. '|' .. ARGV[i + 6]
      conclude(id, v[5], status, cause, ARGV[i + 4], ARGV[i + 5], field, value)
      if live then
        later('HDEL', P .. 'claims:' .. v[3], id)
      end
      if live and v[6] then
        later('SREM', P .. 'cancels:' .. v[3], id)
      end
    end
  end
  reply[#reply + 1] = done
end
expire(2 * #reply) -- keeps pace with what is written, whatever the rate
flush()
return reply
