-- Keep what attempts that run have printed, and how far they are. What there is no memory for is left out.
-- ARGV: prefix, bytes_max of a task's log, what a piece costs, then for each: id, attempt, what, place, text
--   what 'stdout', 'stderr': the text, and its place among all that the attempt has printed
--   what 'progress': text is done, total and message (msgpack)
local EACH = 5
local room, cost = tonumber(ARGV[2]), tonumber(ARGV[3])
local tasks, printed = {}, {}

-- Drop the oldest pieces until the rest fits; return what its size is then.
local function trim(log, size)
  local dropped
  for _, entry in ipairs(call('XRANGE', log, '-', '+', 'COUNT', 64)) do
    if size <= room then
      break
    end
    size = size - #entry[2][4] - cost
    dropped = entry[1]
  end
  local attempt, place = string.match(dropped, '^(%d+)-(%d+)$')
  call('XTRIM', log, 'MINID', attempt .. '-' .. string.format('%.0f', place + 1))
  return size
end

local function append(task, id, attempt, stream, place, text)
  local log = P .. 'l:' .. id
  local entry = attempt .. '-' .. string.format('%.0f', tonumber(place) + #text)
  -- An error says that it is there already, because it is told again, or that there is no memory for it.
  if type(redis.pcall('XADD', log, entry, 's', stream, 't', text, 'w', NOW)) ~= 'string' then
    return
  end
  task.size = task.size + #text + cost
  while task.size > room do
    task.size = trim(log, task.size)
  end
  if not task.told then
    task.told = true
    printed[#printed + 1] = id
  end
end

for i = 4, #ARGV, EACH do
  local id, attempt, what = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local task = tasks[id]
  if not task then
    local v = call('HMGET', P .. 't:' .. id, 'att', 'liv', 'lgb')
    task = { runs = v[2] == '1' and v[1], size = tonumber(v[3] or 0) }
    tasks[id] = task
  end
  if task.runs ~= attempt then -- it has ended, or is another one's by now
  elseif what == 'progress' then
    redis.pcall('HSET', P .. 't:' .. id, 'prg', attempt .. '|' .. NOW .. '|' .. ARGV[i + 4])
  else
    append(task, id, attempt, what, ARGV[i + 3], ARGV[i + 4])
  end
end
for _, id in ipairs(printed) do
  redis.pcall('HSET', P .. 't:' .. id, 'lgb', string.format('%.0f', tasks[id].size))
end
if #printed > 0 then
  call('PUBLISH', P .. 'ended', '>' .. table.concat(printed, ' '))
end
return 1
