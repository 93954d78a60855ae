-- What all scripts of the ledger share; the rules are those of quota/core, to the unit. One script is one turn of Redis,
-- so that nothing comes between looking and charging. All of a tenant's keys begin with KEYS[1], which carries its hash tag.
--
-- What costs is Lua and the commands, not the arithmetic: so a call does many operations of a tenant, what they need is read
-- at once, changed here, and written at once by `save`.
local LEASE_MS, RECENT_MS = 30000, 120000
local EXPIRED_MAX, FORGOTTEN_MAX, IDS_MAX = 64, 64, 8192
local PARTS, TAKEN_MAX, SUM_MAX = 60000, 4000000000000000, 8000000000000000
-- A clock that goes back by more was wrong before.
local AHEAD_MAX_MS = 10000
local CONCURRENCY_RETRY_MS, SPAN_MAX, NEVER = 250, 4294967295, math.huge
local DAY_MS = 86400000
-- What nobody has touched for 35 days says nothing any more: buckets are full, and the longest month is over.
local KEPT_MS = 35 * DAY_MS
-- Arguments of one command: Lua's stack holds four times as many. Even, so that pairs stay together.
local ARGUMENTS_MAX = 2000

local floor, ceil, min, max, band = math.floor, math.ceil, math.min, math.max, bit.band
local call, pack, unpacked = redis.call, struct.pack, cmsgpack.unpack
local asked = unpacked(ARGV[1])
local OPEN, LEASES, RECENT, AGES = KEYS[1] .. ':open', KEYS[1] .. ':leases', KEYS[1] .. ':recent', KEYS[1] .. ':ages'

local now = asked.now
if not now then
  local time = call('TIME')
  now = time[1] * 1000 + floor(time[2] / 1000)
end

-- A score, written out once: Lua would do it anew for each member.
local function score(at)
  return string.format('%.0f', at)
end

local function command(name, key, arguments)
  for first = 1, #arguments, ARGUMENTS_MAX do
    call(name, key, unpack(arguments, first, min(first + ARGUMENTS_MAX - 1, #arguments)))
  end
end

-- Reads those values of a hash that are not known yet: false where there is none.
local function read(hash, fields, known)
  local unknown = {}
  for _, field in ipairs(fields) do
    if known[field] == nil then unknown[#unknown + 1] = field end
  end
  for first = 1, #unknown, ARGUMENTS_MAX do
    local values = call('HMGET', hash, unpack(unknown, first, min(first + ARGUMENTS_MAX - 1, #unknown)))
    for i, value in ipairs(values) do
      known[unknown[first + i - 1]] = value
    end
  end
end

-- Calendar: see calendar.rs.

local function day_end(at)
  return (floor(at / DAY_MS) + 1) * DAY_MS
end

local function days_in(year, month)
  local next = year + 1
  if month == 11 then
    return (next % 4 == 0 and (next % 100 ~= 0 or next % 400 == 0)) and 29 or 28
  end
  return (month == 1 or month == 3 or month == 6 or month == 8) and 30 or 31
end

local function month_end(at)
  local day = floor(at / DAY_MS)
  local era, day_of_era = floor((day + 719468) / 146097), (day + 719468) % 146097
  local leaps = floor(day_of_era / 1460) - floor(day_of_era / 36524) + floor(day_of_era / 146096)
  local year = floor((day_of_era - leaps) / 365)
  local day_of_year = day_of_era - (365 * year + floor(year / 4) - floor(year / 100))
  local month = floor((5 * day_of_year + 2) / 153)
  local day_of_month = day_of_year - floor((153 * month + 2) / 5)
  return (day - day_of_month + days_in(era * 400 + year, month)) * DAY_MS
end

-- Buckets: parts taken and not yet refilled.

local function full_in(taken, rate)
  return rate == 0 and 0 or ceil(taken / rate)
end

local function refill(taken, rate, elapsed)
  return elapsed >= full_in(taken, rate) and 0 or taken - rate * elapsed
end

local function take(taken, rate, units)
  return rate == 0 and taken or min(taken + units * PARTS, TAKEN_MAX)
end

local function give_back(taken, units)
  return max(taken - units * PARTS, 0)
end

-- Budgets: see quota/core/budget.rs.

local function hold(account, tokens, usd)
  account.held_tokens = min(account.held_tokens + tokens, SUM_MAX)
  account.held_usd = min(account.held_usd + usd, SUM_MAX)
end

local function release(account, tokens, usd)
  account.held_tokens = max(account.held_tokens - tokens, 0)
  account.held_usd = max(account.held_usd - usd, 0)
end

local function charge_day(account, tokens, usd)
  account.day_tokens = min(account.day_tokens + tokens, SUM_MAX)
  account.day_usd = min(account.day_usd + usd, SUM_MAX)
end

local function charge_month(account, tokens, usd)
  account.month_tokens = min(account.month_tokens + tokens, SUM_MAX)
  account.month_usd = min(account.month_usd + usd, SUM_MAX)
end

local function charge_budget(account, tokens, usd)
  if account.seeded then
    charge_day(account, tokens, usd)
    charge_month(account, tokens, usd)
  end
end

local function roll(account, period, ended)
  if now >= account[period] then
    account[period] = ended(now)
    account[period .. '_tokens'], account[period .. '_usd'] = 0, 0
  end
end

-- Accounts: the tenant's is at KEYS[1], a key's below it. Those that are touched are written back at the end.

-- By key, the tenant's own by ''.
local accounts = {}

local function place_of(key)
  return key == '' and KEYS[1] or KEYS[1] .. ':key:' .. key
end

local function loaded(stored)
  local account = {}
  account.at, account.requests, account.request_rate, account.tokens, account.token_rate, account.open, account.seeded,
    account.held_tokens, account.held_usd, account.day, account.day_tokens, account.day_usd,
    account.month, account.month_tokens, account.month_usd = unpack(unpacked(stored))
  return account
end

local function stored(account)
  return cmsgpack.pack({
    account.at, account.requests, account.request_rate, account.tokens, account.token_rate, account.open, account.seeded,
    account.held_tokens, account.held_usd, account.day, account.day_tokens, account.day_usd,
    account.month, account.month_tokens, account.month_usd,
  })
end

local function account_of(key)
  local account = accounts[key]
  if not account then
    local found = call('GET', place_of(key))
    account = found and loaded(found) or {
      at = 0, requests = 0, request_rate = 0, tokens = 0, token_rate = 0, open = 0, seeded = false, held_tokens = 0, held_usd = 0,
      day = 0, day_tokens = 0, day_usd = 0, month = 0, month_tokens = 0, month_usd = 0,
    }
    accounts[key] = account
  end
  return account
end

-- The time does not change in a turn, so once is enough.
local function advance(account)
  account.touched = true
  if account.is_current then return end
  account.is_current = true
  if account.at > now + AHEAD_MAX_MS then account.at = now end
  local elapsed = max(now - account.at, 0)
  account.requests = refill(account.requests, account.request_rate, elapsed)
  account.tokens = refill(account.tokens, account.token_rate, elapsed)
  account.at = max(account.at, now)
  roll(account, 'day', day_end)
  roll(account, 'month', month_end)
end

local function save_accounts()
  for key, account in pairs(accounts) do
    if account.touched then call('SET', place_of(key), stored(account), 'PX', KEPT_MS) end
  end
end

-- Open reservations: OPEN holds what was charged, LEASES until when.

-- Tokens, money, flags, and the key whose account was charged beside the tenant's, or ''.
local OPEN_FORMAT = '>ddHHc0'
-- The flags: whether the log holds its usage already, whether a budget watches it, and what each account was charged for.
local COUNTED, BUDGETED, REQUESTS, TOKENS, BUDGET = 1, 2, 4, 8, 16
local OF_KEY = 8 -- times as much as the tenant's flag is the key's

-- By id: what is open, or false; which of them are to be written or taken away; whose lease begins anew.
local opens, changed, leased = {}, {}, {}

local function opened(id)
  if opens[id] == nil then read(OPEN, { id }, opens) end
  return opens[id]
end

local function write_open(id, tokens, usd, flags, key)
  opens[id], changed[id] = pack(OPEN_FORMAT, tokens, usd, flags, #key, key), true
end

local function remove_open(id)
  opens[id], changed[id], leased[id] = false, true, nil
end

local function save_open()
  local written, removed, leases, ends = {}, {}, {}, score(now + LEASE_MS)
  for id in pairs(changed) do
    local open = opens[id]
    if open then
      written[#written + 1] = id
      written[#written + 1] = open
    else
      removed[#removed + 1] = id
    end
  end
  for id in pairs(leased) do
    leases[#leases + 1] = ends
    leases[#leases + 1] = id
  end
  command('HDEL', OPEN, removed)
  command('ZREM', LEASES, removed)
  command('HSET', OPEN, written)
  command('ZADD', LEASES, leases)
  if #written + #leases > 0 then
    call('PEXPIRE', OPEN, KEPT_MS)
    call('PEXPIRE', LEASES, KEPT_MS)
  end
end

-- Ids settled or counted lately: RECENT holds what the log may not, AGES since when.

-- Since when, tokens, money, key or ''.
local RECENT_FORMAT = '>dddHc0'
local recents, remembered = {}, {}

local function is_recent(id)
  if recents[id] == nil then read(RECENT, { id }, recents) end
  local entry = recents[id]
  return entry and struct.unpack('>d', entry) + RECENT_MS > now
end

local function remember(id, tokens, usd, key)
  recents[id], remembered[#remembered + 1] = pack(RECENT_FORMAT, now, tokens, usd, #key, key), id
end

local function forget(ids)
  command('ZREM', AGES, ids)
  command('HDEL', RECENT, ids)
end

local function save_recent()
  if #remembered == 0 then return end
  forget(call('ZRANGEBYSCORE', AGES, '-inf', now - RECENT_MS, 'LIMIT', 0, FORGOTTEN_MAX + #remembered))
  local entries, ages, since = {}, {}, score(now)
  for _, id in ipairs(remembered) do
    entries[#entries + 1] = id
    entries[#entries + 1] = recents[id]
    ages[#ages + 1] = since
    ages[#ages + 1] = id
  end
  command('HSET', RECENT, entries)
  command('ZADD', AGES, ages)
  local over = call('ZCARD', AGES) - IDS_MAX
  if over > 0 then forget(call('ZRANGE', AGES, 0, over - 1)) end
  call('PEXPIRE', RECENT, 2 * RECENT_MS)
  call('PEXPIRE', AGES, 2 * RECENT_MS)
  remembered = {}
end

local function save()
  save_accounts()
  save_open()
  save_recent()
end

-- Ends reservations that nobody renewed, in one of the accounts they are open in: what they used is not known.
local function run_out(account, flags, tokens, usd)
  account.touched = true
  account.open = max(account.open - 1, 0)
  if band(flags, BUDGET) > 0 then
    release(account, tokens, usd)
    account.seeded = false
  end
end

-- A bounded number of them, and more than a turn may open.
local function expire(most)
  local ids = call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, most)
  if #ids == 0 then return end
  read(OPEN, ids, opens)
  for _, id in ipairs(ids) do
    local open = opens[id]
    remove_open(id)
    if open then
      local tokens, usd, flags, key = struct.unpack(OPEN_FORMAT, open)
      run_out(account_of(''), flags, tokens, usd)
      if key ~= '' then run_out(account_of(key), floor(flags / OF_KEY), tokens, usd) end
    end
  end
end
