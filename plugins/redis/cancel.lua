#!lua flags=allow-oom
-- Cancel tasks: at once what does not run, else by a mark for the dispatcher that runs it.
-- ARGV: prefix, result and error of a cancelled task, '1' or '' (leave alone what runs), ids.
-- Returns the status of each, or '' for an unknown one.
local reply, marked = {}, false
local names -- whoever may hold a task that does not run

local function release(id)
  names = names or call('ZRANGE', P .. 'dispatchers', 0, -1)
  for _, name in ipairs(names) do
    if call('HDEL', P .. 'claims:' .. name, id) == 1 then
      return true
    end
  end
  return false
end

for i = 5, #ARGV do
  local id = ARGV[i]
  local v = call('HMGET', P .. 't:' .. id, 'st', 'own', 'liv', 'ttl', 'dl', 'exp')
  local status = v[1] or ''
  if v[6] and tonumber(v[6]) <= now then
    status = ''
  elseif v[1] and not TERMINAL[v[1]] then
    if v[3] == '1' and ARGV[4] == '' then
      status = v[1]
    elseif v[3] == '1' then
      call('HSET', P .. 't:' .. id, 'cxl', '1')
      marked = call('SADD', P .. 'cancels:' .. v[2], id) == 1 or marked
    else
      status = 'CANCELLED'
      if release(id) then
        conclude(id, v[4], status, 'cancelled', ARGV[2], ARGV[3], 'cxl', '1')
      else
        conclude_free(id, v[4], v[5], status, 'cancelled', ARGV[2], ARGV[3])
        call('HSET', P .. 't:' .. id, 'cxl', '1')
      end
    end
  end
  reply[#reply + 1] = status
end
flush()
if marked then
  call('PUBLISH', P .. 'work', 'c')
end
return reply
