#!lua flags=allow-oom
-- Put back tasks that the dispatcher holds; an attempt is charged at most once.
-- ARGV: prefix, dispatcher, result and error of a cancelled task, then for each: id, attempt, cause, charged ('1' or
-- ''), delay_s, error
local claims = P .. 'claims:' .. ARGV[2]
for i = 5, #ARGV, 6 do
  local id, attempt, cause = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local v = call('HMGET', P .. 't:' .. id, 'st', 'att', 'liv', 'chg', 'pr', 'dl', 'cxl', 'ttl')
  if v[1] and (v[2] or '0') == attempt and not TERMINAL[v[1]] and call('HDEL', claims, id) == 1 then
    local changes = {}
    local ending = v[3] == '1' and now .. '|' .. cause .. '|' or nil
    if v[7] then
      later('SREM', P .. 'cancels:' .. ARGV[2], id)
      conclude(id, v[8], 'CANCELLED', 'cancelled', ARGV[3], ARGV[4], ending and 'E' .. attempt, ending)
    else
      if ending then
        changes = { 'E' .. attempt, ending }
        if ARGV[i + 3] == '1' then
          changes[#changes + 1] = 'chg'
          changes[#changes + 1] = (v[4] or 0) + 1
        end
      end
      if ARGV[i + 5] ~= '' then
        changes[#changes + 1] = 'err'
        changes[#changes + 1] = ARGV[i + 5]
      end
      put_back(id, v[5], v[6], math.ceil(tonumber(ARGV[i + 4]) * 1000), changes)
    end
  end
end
flush()
return 1
