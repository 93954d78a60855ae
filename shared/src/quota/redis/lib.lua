-- What all scripts of the ledger share; the rules are those of quota/core, to the unit. One script is one turn of Redis,
-- so that nothing comes between looking and charging. All of a tenant's keys begin with KEYS[1], which carries its hash tag.
local LEASE_MS, RECENT_MS = 30000, 120000
local EXPIRED_MAX, FORGOTTEN_MAX, IDS_MAX = 64, 64, 8192
local PARTS, TAKEN_MAX, SUM_MAX = 60000, 4000000000000000, 8000000000000000
local CONCURRENCY_RETRY_MS, SPAN_MAX, NEVER = 250, 4294967295, math.huge
local DAY_MS = 86400000
-- What nobody has touched for 35 days says nothing any more: buckets are full, and the longest month is over.
local KEPT_MS = 35 * DAY_MS

local floor, ceil, min, max = math.floor, math.ceil, math.min, math.max
local call = redis.call
local asked = cmsgpack.unpack(ARGV[1])
local OPEN, LEASES, RECENT, AGES = KEYS[1] .. ':open', KEYS[1] .. ':leases', KEYS[1] .. ':recent', KEYS[1] .. ':ages'

local now = asked.now
if not now then
  local time = call('TIME')
  now = time[1] * 1000 + floor(time[2] / 1000)
end

-- Calendar: see quota/core/calendar.rs.

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

local function add(account, field, tokens, usd)
  account[field .. '_tokens'] = min(account[field .. '_tokens'] + tokens, SUM_MAX)
  account[field .. '_usd'] = min(account[field .. '_usd'] + usd, SUM_MAX)
end

local function release(account, tokens, usd)
  account.held_tokens = max(account.held_tokens - tokens, 0)
  account.held_usd = max(account.held_usd - usd, 0)
end

local function charge_budget(account, tokens, usd)
  if account.seeded then
    add(account, 'day', tokens, usd)
    add(account, 'month', tokens, usd)
  end
end

local function roll(account, period, ended)
  if now >= account[period] then
    account[period] = ended(now)
    account[period .. '_tokens'], account[period .. '_usd'] = 0, 0
  end
end

-- Accounts: the tenant's is at KEYS[1], a key's below it. Those that are touched are written back at the end.

local accounts = {}

local function account_of(key)
  local at = key and KEYS[1] .. ':key:' .. key or KEYS[1]
  if not accounts[at] then
    local stored = call('GET', at)
    accounts[at] = stored and cmsgpack.unpack(stored) or {
      at = 0, requests = 0, request_rate = 0, tokens = 0, token_rate = 0, open = 0, seeded = false, held_tokens = 0, held_usd = 0,
      day = 0, day_tokens = 0, day_usd = 0, month = 0, month_tokens = 0, month_usd = 0,
    }
  end
  return accounts[at]
end

local function advance(account)
  local elapsed = max(now - account.at, 0)
  account.requests = refill(account.requests, account.request_rate, elapsed)
  account.tokens = refill(account.tokens, account.token_rate, elapsed)
  account.at = max(account.at, now)
  roll(account, 'day', day_end)
  roll(account, 'month', month_end)
  account.touched = true
end

local function save()
  for at, account in pairs(accounts) do
    if account.touched then
      account.touched = nil
      call('SET', at, cmsgpack.pack(account), 'PX', KEPT_MS)
    end
  end
  call('PEXPIRE', OPEN, KEPT_MS)
  call('PEXPIRE', LEASES, KEPT_MS)
end

-- Open reservations: OPEN holds what was charged, LEASES until when.

local function opened(id)
  local stored = call('HGET', OPEN, id)
  return stored and cmsgpack.unpack(stored)
end

local function write_open(id, open)
  call('HSET', OPEN, id, cmsgpack.pack(open))
end

local function remove_open(id)
  call('HDEL', OPEN, id)
  call('ZREM', LEASES, id)
end

-- Calls `act` with each account that a reservation was charged in, and with what it was charged for.
local function each_side(open, act)
  act(account_of(nil), open.of_tenant)
  if open.key then
    act(account_of(open.key), open.of_key)
  end
end

-- Ids settled or counted lately: RECENT holds what the log may not, AGES since when.

local function is_recent(id)
  local at = call('ZSCORE', AGES, id)
  return at and tonumber(at) + RECENT_MS > now
end

local function remember(id, tokens, usd, key)
  call('HSET', RECENT, id, cmsgpack.pack({ at = now, tokens = tokens, usd = usd, key = key }))
  call('ZADD', AGES, now, id)
  for _ = IDS_MAX + 1, call('ZCARD', AGES) do
    call('HDEL', RECENT, call('ZPOPMIN', AGES)[1])
  end
  call('PEXPIRE', RECENT, 2 * RECENT_MS)
  call('PEXPIRE', AGES, 2 * RECENT_MS)
end

local function forget_old()
  local old = call('ZRANGEBYSCORE', AGES, '-inf', now - RECENT_MS, 'LIMIT', 0, FORGOTTEN_MAX)
  for _, id in ipairs(old) do
    call('ZREM', AGES, id)
    call('HDEL', RECENT, id)
  end
end

-- Ends the reservations that nobody renewed: what they used is not known.
local function expire(id)
  local open = opened(id)
  remove_open(id)
  if not open then return end
  each_side(open, function(account, charged)
    account.open = max(account.open - 1, 0)
    if charged.budget then
      release(account, open.tokens, open.usd)
      account.seeded = false
    end
    account.touched = true
  end)
end

for _, id in ipairs(call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, EXPIRED_MAX)) do
  expire(id)
end
