-- Put in front of every script. ARGV[1] is the prefix of all keys; each script says what its other arguments are.
--
-- A script's first line says what the server lets it do. Whatever brings work to its end may use memory beyond maxmemory
-- (allow-oom), so that a full store drains; whatever lets new work in may not, and has no such line: then the server
-- refuses its first write, or none of them, so nothing is ever half-written.
--
-- t:<task>  hash:
--   st status · fn function · pl payload · sub submitted_ms · pr priority · max max_attempts
--   ttl result_ttl_s, and |<group> behind it for a task that has one: what its end has to know, in one field
--   tmo timeout_s · bof retry_backoff_s · ron retry_on (msgpack) · rof retry_of · dl deadline_ms · due not before, ms · grp group · tag tags (msgpack)
--   key idempotency key · att last attempt · chg attempts charged · liv '1' while attempt att runs
--   epo attempt:epoch of the worker's Hello under which it was sent, or adopted last
--   own dispatcher that attempt runs under · cxl '1' a cancel was asked for · res result · err error · cau cause
--   end ended_ms · exp expires_ms · S<n> leased_ms|started_ms|worker · E<n> ended_ms|cause|run_s
--   lgb size of its log, with what pieces cost · prg attempt|at ms|done, total and message (msgpack) of its progress
--   plb, rsb  size of a large payload or result, in bytes: it is not in the hash, but in a key of its own
-- p:<task>, r:<task>:<attempt>  a large payload; a large result. Written before the script that makes it count, with a
--   time to live that this script takes away: what never comes to count, or of an attempt that is stale, goes by itself
-- l:<task>  stream, once it has printed something: <attempt>-<place of its end> → s stream, t text, w when, ms
-- f:<function>  hash: n name · p payload · o options (msgpack) · c created_ms · pr max tmo bof ttl ron for its tasks
-- index, g:<group>, functions  lexicographic zsets for listing · idem:<key>  the task it stands for
-- e:<group>  zset: task that has ended → number of its end · ends  number of the last end of a task with a group
--
-- q:<priority>  lists of queued tasks, head first; entries that ended meanwhile stay, and are skipped
-- levels  set of the priorities whose list may hold something · queued  how many tasks wait, delayed ones too
-- concluded  how many tasks have ended since the store is there
-- delayed, deadlines, expiry  zsets by instant: tasks held back; those nobody holds with a deadline; ended records
-- waiting  set of dispatchers that found too little · picks  counter of claims from several levels
--
-- dispatchers  zset: dispatcher → end of its lease; orphaned claims stand in it as <dispatcher>~<n> with score 0
-- claims:<dispatcher>  hash: task → c<tag>|<leased_ms>|<last attempt>|<deadline_ms or ''> claimed, or it runs:
--   b on a bound worker | w<worker> | a<tag> <worker> adopted
-- turn:<dispatcher>  number of its last turn · fleet:<dispatcher>  hash: r report, n slots
-- drains  zset: worker that was asked to leave → when it was last in a report
-- cancels:<dispatcher>  set · evicted:<dispatcher>  '' or the tag it was told in · orphans  counter · secret

local P = ARGV[1]
local call = redis.call
local TIME = call('TIME')
local now = TIME[1] * 1000 + math.floor(TIME[2] / 1000)
local NOW = string.format('%.0f', now) -- numbers cost a formatting each time they go into a command
local TERMINAL = { COMPLETED = true, FAILED = true, CANCELLED = true }
local LEVELS = 9 -- priorities are 0 … 9
local ARGUMENTS_MAX = 2000 -- of one call; even, so that pairs stay together (Lua's stack ends at 8000)
local TOLD_BYTES_MAX = 1024 -- of a result that goes with the notice of its task's end, so that it need not be read
local PROMOTE_MAX = 1000 -- delayed tasks that one call moves into their queues

-- Changes that many tasks make to one key are collected by `later` and made by `flush`, in few calls.
local pending, order = {}, {}
local heads = {}
local ended = {}
local lone -- what a notice tells of a task that has ended alone
local expiries = {}
local groups = {} -- by what stands in `ttl`
local told = {} -- groups in which something has ended, to be told
local last_end
local bell = false
local waits = 0 -- by how much the number of waiting tasks has changed

local function later(command, key, a, b)
  local name = command .. ' ' .. key
  local list = pending[name]
  if not list then
    list = {}
    pending[name] = list
    order[#order + 1] = { command, key, list }
  end
  list[#list + 1] = a
  if b ~= nil then
    list[#list + 1] = b
  end
end

local function many(command, key, list)
  for first = 1, #list, ARGUMENTS_MAX do
    call(command, key, unpack(list, first, math.min(first + ARGUMENTS_MAX - 1, #list)))
  end
end

local function flush()
  for _, change in ipairs(order) do
    many(change[1], change[2], change[3])
  end
  for level = 0, LEVELS do
    local ids = heads[level]
    if ids then
      local reversed = {}
      for i = #ids, 1, -1 do
        reversed[#reversed + 1] = ids[i]
      end
      many('LPUSH', P .. 'q:' .. level, reversed)
      call('SADD', P .. 'levels', level)
      bell = true
    end
  end
  if waits ~= 0 then
    call('INCRBY', P .. 'queued', waits)
  end
  if #ended > 0 then
    call('INCRBY', P .. 'concluded', #ended)
  end
  if #ended == 1 and lone then
    call('PUBLISH', P .. 'ended', lone)
  elseif #ended > 0 then
    call('PUBLISH', P .. 'ended', table.concat(ended, ' '))
  end
  if last_end then
    call('SET', P .. 'ends', string.format('%.0f', last_end))
    local names = {}
    for group in pairs(told) do
      names[#names + 1] = group
    end
    call('PUBLISH', P .. 'ended', '+' .. cmsgpack.pack(names))
  end
  if bell and call('EXISTS', P .. 'waiting') == 1 then
    call('DEL', P .. 'waiting')
    call('PUBLISH', P .. 'work', 'w')
  end
end

-- Number the end of a task that has a group. A number is never less than the time in µs, so that none comes twice to
-- those who remember one, even if the server has lost its last writes, or all of them.
local function end_in_group(group, id)
  last_end = last_end or math.max(tonumber(call('GET', P .. 'ends') or 0), TIME[1] * 1000000 + TIME[2])
  last_end = last_end + 1
  told[group] = true
  later('ZADD', P .. 'e:' .. group, string.format('%.0f', last_end), id)
end

-- Write a terminal record, and whatever else `field, value` sets with it. A number as the result is the size of one that
-- has a key of its own.
local function conclude(id, ttl, status, cause, result, message, field, value)
  local expires = expiries[ttl]
  if not expires then
    local seconds, group = string.match(ttl, '^([^|]*)|(.*)$')
    expires = string.format('%.0f', now + math.floor(tonumber(seconds or ttl) * 1000))
    expiries[ttl] = expires
    groups[ttl] = group
  end
  local place = type(result) == 'number' and 'rsb' or 'res'
  local changes = {
    'st', status, 'cau', cause, place, result, 'err', message, 'end', NOW, 'exp', expires, 'own', '', 'liv', '',
  }
  if field then
    changes[#changes + 1] = field
    changes[#changes + 1] = value
  end
  call('HSET', P .. 't:' .. id, unpack(changes))
  later('ZADD', P .. 'expiry', expires, id)
  ended[#ended + 1] = id
  if #ended == 1 and type(result) == 'string' and #result <= TOLD_BYTES_MAX then
    lone = '=' .. id .. ' ' .. status .. ' ' .. result
  end
  if groups[ttl] then
    end_in_group(groups[ttl], id)
  end
end

-- End a task that nobody holds. It leaves the delayed ones; in a queue its entry stays, to be skipped.
local function conclude_free(id, ttl, dl, status, cause, result, message)
  waits = waits - 1
  later('ZREM', P .. 'delayed', id)
  if dl then
    later('ZREM', P .. 'deadlines', id)
  end
  conclude(id, ttl, status, cause, result, message)
end

-- Tell whether a delayed task that is due then is the first: the waiting would sleep past it.
local function is_first(due)
  local first = call('ZRANGE', P .. 'delayed', 0, 0, 'WITHSCORES')
  return not first[2] or due < tonumber(first[2])
end

local function delay(id, due)
  if is_first(due) then
    bell = true
  end
  call('ZADD', P .. 'delayed', due, id)
end

-- Put a task that a dispatcher held back to the head of its queue, or delay it; `changes` are set with it.
local function put_back(id, pr, dl, delay_ms, changes)
  waits = waits + 1
  changes[#changes + 1] = 'own'
  changes[#changes + 1] = ''
  changes[#changes + 1] = 'liv'
  changes[#changes + 1] = ''
  if delay_ms > 0 then
    local due = now + delay_ms
    changes[#changes + 1] = 'due'
    changes[#changes + 1] = due
    delay(id, due)
  else
    local level = tonumber(pr)
    heads[level] = heads[level] or {}
    table.insert(heads[level], id)
  end
  call('HSET', P .. 't:' .. id, unpack(changes))
  if dl then
    later('ZADD', P .. 'deadlines', dl, id)
  end
end

-- Milliseconds until the first delayed task is due; -1: there is none.
local function next_due()
  local first = call('ZRANGE', P .. 'delayed', 0, 0, 'WITHSCORES')
  if not first[2] then
    return -1
  end
  return math.max(0, tonumber(first[2]) - now)
end

-- Move delayed tasks that are due into their queues. Returns what `next_due` says after that.
local function promote()
  local rest = next_due()
  if rest ~= 0 then
    return rest
  end
  local due = call('ZRANGE', P .. 'delayed', '-inf', now, 'BYSCORE', 'LIMIT', 0, PROMOTE_MAX)
  for _, id in ipairs(due) do
    local pr = call('HGET', P .. 't:' .. id, 'pr')
    call('RPUSH', P .. 'q:' .. pr, id)
    call('SADD', P .. 'levels', pr)
  end
  many('ZREM', P .. 'delayed', due)
  bell = true
  return next_due()
end

local function queued()
  return tonumber(call('GET', P .. 'queued') or 0)
end

local function payload_key(id)
  return P .. 'p:' .. id
end

local function result_key(id, attempt)
  return P .. 'r:' .. id .. ':' .. attempt
end

-- Keep what was written to a key of its own, for good. False: it is not there, or not whole.
local function keep(key, size)
  if call('STRLEN', key) ~= size then
    return false
  end
  call('PERSIST', key)
  return true
end

-- Delete records whose retention has passed, with all that names them.
local function expire(limit)
  local past = call('ZRANGE', P .. 'expiry', '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
  for _, id in ipairs(past) do
    local v = call('HMGET', P .. 't:' .. id, 'grp', 'key', 'plb', 'rsb', 'att', 'lgb')
    if v[3] then
      call('UNLINK', payload_key(id))
    end
    if v[4] then
      call('UNLINK', result_key(id, v[5] or '0'))
    end
    if v[6] then
      call('UNLINK', P .. 'l:' .. id)
    end
    if v[1] then
      later('ZREM', P .. 'g:' .. v[1], id)
      later('ZREM', P .. 'e:' .. v[1], id)
    end
    if v[2] and call('GET', P .. 'idem:' .. v[2]) == id then
      call('DEL', P .. 'idem:' .. v[2])
    end
    call('UNLINK', P .. 't:' .. id)
    later('ZREM', P .. 'index', id)
    later('ZREM', P .. 'expiry', id)
  end
end

-- The epoch of its worker's Hello under which an attempt was sent, or adopted last.
local function epoch_of(id, attempt)
  local of, epoch = string.match(call('HGET', P .. 't:' .. id, 'epo') or '', '^(%d+):(%d+)$')
  return of == attempt and tonumber(epoch) or 0
end

-- What a dispatcher gets of a task it claims or adopts: eleven values. For a large payload that is its size, a number.
local HELD = {
  'fn', 'pl', 'att', 'chg', 'pr', 'max', 'bof', 'tmo', 'dl', 'st', 'own', 'ttl', 'liv', 'cxl', 'ron', 'plb',
}
local function size_of(v)
  return v[2] and #v[2] or tonumber(v[16] or 0)
end

local function describe(reply, id, v)
  reply[#reply + 1] = id
  reply[#reply + 1] = v[1]
  reply[#reply + 1] = v[2] or size_of(v)
  reply[#reply + 1] = v[3] or '0'
  reply[#reply + 1] = v[4] or '0'
  reply[#reply + 1] = v[5]
  reply[#reply + 1] = v[6]
  reply[#reply + 1] = v[7] or ''
  reply[#reply + 1] = v[8] or ''
  reply[#reply + 1] = v[9] and tostring(v[9] - now) or ''
  reply[#reply + 1] = v[15] or ''
end

-- Tell whether a turn was given up by its dispatcher, and has reached us only now, after a later one: what it claims or
-- starts would be known to nobody. (Finishes and requeues are fenced by their attempt.)
local function is_stale(dispatcher, number)
  local key = P .. 'turn:' .. dispatcher
  local last = call('GET', key)
  if last ~= number then
    if last and tonumber(last) > tonumber(number) then
      return true
    end
    call('SET', key, number, 'EX', 86400)
  end
  return false
end

-- Take all claims from a dispatcher, to be swept under a name of their own: it may come back and claim anew.
local function orphan(dispatcher)
  call('ZREM', P .. 'dispatchers', dispatcher)
  call('SREM', P .. 'waiting', dispatcher)
  call('DEL', P .. 'fleet:' .. dispatcher, P .. 'cancels:' .. dispatcher)
  if call('EXISTS', P .. 'claims:' .. dispatcher) == 1 then
    local name = dispatcher .. '~' .. call('INCR', P .. 'orphans')
    call('RENAME', P .. 'claims:' .. dispatcher, P .. 'claims:' .. name)
    call('ZADD', P .. 'dispatchers', 0, name)
    return name
  end
end

-- The workers that a report (msgpack) lists, as a set.
local function workers_in(report)
  local found = {}
  for _, worker in ipairs(cmsgpack.unpack(report).workers or {}) do
    found[worker.worker_id] = true
  end
  return found
end
