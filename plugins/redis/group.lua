#!lua flags=no-writes
-- The tasks of a group that have ended, in the order of their ends.
-- ARGV: prefix, group, number of the last end known, limit, bytes_max of results, '1' to read results too
-- Returns {number of the last end looked at, tasks of the group, ended ones, 1 if there are more, then task, number of
-- its end, status, result, tags (packed, or '') of each}. Expired ones are passed over. A large result is the attempt that its key is named by,
-- a number.
local key = P .. 'e:' .. ARGV[2]
local limit, room = tonumber(ARGV[4]), tonumber(ARGV[5])
local rows = call('ZRANGE', key, '(' .. ARGV[3], '+inf', 'BYSCORE', 'LIMIT', 0, limit + 1, 'WITHSCORES')
local reply = { ARGV[3], call('ZCARD', P .. 'g:' .. ARGV[2]), call('ZCARD', key), 0 }
for i = 1, #rows, 2 do
  if room <= 0 or i > 2 * limit then
    reply[4] = 1
    break
  end
  local id = rows[i]
  local v
  if ARGV[6] == '1' then
    v = call('HMGET', P .. 't:' .. id, 'st', 'exp', 'tag', 'res', 'rsb', 'att')
  else
    v = call('HMGET', P .. 't:' .. id, 'st', 'exp', 'tag')
  end
  if v[1] and tonumber(v[2]) > now then
    for _, value in ipairs({ id, rows[i + 1], v[1], v[5] and tonumber(v[6] or 0) or v[4] or '', v[3] or '' }) do
      reply[#reply + 1] = value
    end
    room = room - (v[5] and tonumber(v[5]) or #(v[4] or ''))
  end
  reply[1] = rows[i + 1]
end
return reply
