-- Store and enqueue tasks: all, or none. Idempotent by task id and by idempotency key.
-- ARGV: prefix, queue_max, default priority, max_attempts, result_ttl_s, then for each task: id, function, payload,
-- and '' or msgpack [priority, delay_s, timeout_s, deadline_s, max_attempts, result_ttl_s, key, group, tags,
-- retry_backoff_s, retry_on, retry_of, size of a large payload, which has a key of its own]
-- Returns {'ok', position, id, …} with the ids that differ, {'unknown', function}, {'full', queued},
-- {'conflict', key, id}: the key stands for that task, of another function or payload; or {'lost'}: a large payload is not
-- in its key.
local NONE = {}

local function holder(key) -- the task that an idempotency key stands for, while its record is kept
  local id = call('GET', P .. 'idem:' .. key)
  if not id then
    return nil
  end
  local v = call('HMGET', P .. 't:' .. id, 'st', 'exp')
  if not v[1] or (v[2] and tonumber(v[2]) <= now) then
    return nil
  end
  return id
end

-- Tell whether a task, stored or (then `at` is its place in ARGV) about to be, is the same call as the one at place `i`.
local function is_same(id, at, i)
  local v = at and { ARGV[at + 1], ARGV[at + 2] } or call('HMGET', P .. 't:' .. id, 'fn', 'pl', 'plb')
  local before, after = v[2], ARGV[i + 2]
  if v[3] or before == '' then
    before = call('GET', payload_key(id)) or ''
  end
  if after == '' then
    after = call('GET', payload_key(ARGV[i])) or ''
  end
  return v[1] == ARGV[i + 1] and before == after
end

-- Refuse all; large payloads that came with tasks not stored are not to wait for the end of their time.
local function refuse(...)
  for i = 6, #ARGV, 4 do
    local x = ARGV[i + 3] ~= '' and cmsgpack.unpack(ARGV[i + 3]) or NONE
    if x[13] and call('EXISTS', P .. 't:' .. ARGV[i]) == 0 then
      call('UNLINK', payload_key(ARGV[i]))
    end
  end
  return { ... }
end

local wanted, stored = {}, 0
for i = 6, #ARGV, 4 do
  wanted[#wanted + 1] = P .. 't:' .. ARGV[i]
end
for first = 1, #wanted, ARGUMENTS_MAX do -- at once, since hardly ever one is there
  stored = stored + call('EXISTS', unpack(wanted, first, math.min(first + ARGUMENTS_MAX - 1, #wanted)))
end

local reply, fresh = { 'ok' }, {}
local ids, keys, functions = {}, {}, {}
for i = 6, #ARGV, 4 do
  local id, fn = ARGV[i], ARGV[i + 1]
  local x = NONE
  if ARGV[i + 3] ~= '' then
    x = cmsgpack.unpack(ARGV[i + 3])
  end
  if not ids[id] and (stored == 0 or call('EXISTS', P .. 't:' .. id) == 0) then
    local first = x[7] and (keys[x[7]] or holder(x[7]))
    if first then
      if not is_same(first, ids[first], i) then
        return refuse('conflict', x[7], first)
      end
      if x[13] then
        call('UNLINK', payload_key(id))
      end
      reply[#reply + 1] = (i - 6) / 4
      reply[#reply + 1] = first
    else
      if not functions[fn] then
        local v = call('HMGET', P .. 'f:' .. fn, 'c', 'pr', 'max', 'tmo', 'bof', 'ttl', 'ron')
        if not v[1] then
          return refuse('unknown', fn)
        end
        functions[fn] = v
      end
      ids[id] = i
      if x[7] then
        keys[x[7]] = id
      end
      fresh[#fresh + 1] = { i, x }
    end
  end
end

if #fresh > 0 then
  local waiting = queued()
  if waiting + #fresh > tonumber(ARGV[2]) then
    return refuse('full', waiting)
  end
end

for _, item in ipairs(fresh) do
  if item[2][13] and call('STRLEN', payload_key(ARGV[item[1]])) ~= item[2][13] then
    return refuse('lost')
  end
end

waits = #fresh
local levels = {}
for _, item in ipairs(fresh) do
  local i, x = item[1], item[2]
  local id, fn = ARGV[i], ARGV[i + 1]
  local f = functions[fn]
  local pr = x[1] or f[2] or ARGV[3]
  local ttl = x[6] or f[6] or ARGV[5]
  if x[8] then
    ttl = ttl .. '|' .. x[8]
  end
  local h = {
    'st', 'QUEUED', 'fn', fn, x[13] and 'plb' or 'pl', x[13] or ARGV[i + 2], 'sub', NOW, 'pr', pr,
    'max', x[5] or f[3] or ARGV[4], 'ttl', ttl,
  }
  local function set(field, value)
    if value then
      h[#h + 1] = field
      h[#h + 1] = value
    end
  end
  if x[13] then
    call('PERSIST', payload_key(id))
  end
  set('tmo', x[3] or f[4])
  set('bof', x[10] or f[5])
  set('ron', x[11] and (#x[11] > 0 and cmsgpack.pack(x[11]) or '') or f[7])
  set('rof', x[12])
  set('key', x[7])
  set('grp', x[8])
  set('tag', x[9] and cmsgpack.pack(x[9]))
  if x[4] then
    local dl = now + math.floor(x[4] * 1000)
    set('dl', dl)
    later('ZADD', P .. 'deadlines', dl, id)
  end
  if x[2] and x[2] > 0 then
    local due = now + math.ceil(x[2] * 1000)
    set('due', due)
    delay(id, due)
  else
    later('RPUSH', P .. 'q:' .. pr, id)
    if not levels[pr] then
      levels[pr] = true
      call('SADD', P .. 'levels', pr)
      bell = true
    end
  end
  call('HSET', P .. 't:' .. id, unpack(h))
  later('ZADD', P .. 'index', '0', id)
  if x[7] then
    call('SET', P .. 'idem:' .. x[7], id)
  end
  if x[8] then
    later('ZADD', P .. 'g:' .. x[8], 0, id)
  end
end
flush()
return reply
