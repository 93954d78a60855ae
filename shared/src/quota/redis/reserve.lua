-- asked: id, tokens, usd, tenant = quota, key = name, of_key = quota.
-- Answers { decision, reason, whose, retry (-1: never), limit, remaining, reset of requests, the same of tokens }.
local GRANTED, REFUSED, UNSEEDED = 0, 1, 2

local counted = (asked.tenant.has_budget or asked.of_key and asked.of_key.has_budget) and is_recent(asked.id) or false

local function adopt(account, quota)
  account.request_rate = quota.request_rate or 0
  account.token_rate = quota.token_rate or 0
  if account.request_rate == 0 then account.requests = 0 end
  if account.token_rate == 0 then account.tokens = 0 end
  if not quota.has_budget then account.seeded = false end
end

local function side(whose, quota, account)
  advance(account)
  adopt(account, quota)
  return { whose = whose, quota = quota, account = account }
end

local sides = { side(0, asked.tenant, account_of(nil)) }
if asked.of_key then
  sides[2] = side(1, asked.of_key, account_of(asked.key))
end

local function bucket_wait(taken, rate, burst, units)
  local missing = taken + units * PARTS - burst * PARTS
  if missing <= 0 then return nil end
  return units > burst and NEVER or min(ceil(missing / rate), SPAN_MAX)
end

local function budget_wait(limit, sum, amount, ends)
  if not limit or sum + amount <= limit then return nil end
  return amount > limit and NEVER or min(max(ends - now, 0), SPAN_MAX)
end

-- The waits of each limit of a side, by the numbers of Reason::ALL.
local function waits(quota, account)
  local all = {}
  if quota.request_rate then
    all[0] = bucket_wait(account.requests, quota.request_rate, quota.request_burst, 1)
  end
  if quota.token_rate then
    all[1] = bucket_wait(account.tokens, quota.token_rate, quota.token_burst, asked.tokens)
  end
  if quota.concurrency and account.open >= quota.concurrency then
    all[2] = CONCURRENCY_RETRY_MS
  end
  if account.seeded then
    local tokens, usd = counted and 0 or asked.tokens, counted and 0 or asked.usd
    local held_tokens, held_usd = account.held_tokens, account.held_usd
    all[3] = budget_wait(quota.tokens_per_day, account.day_tokens + held_tokens, tokens, account.day)
    all[4] = budget_wait(quota.tokens_per_month, account.month_tokens + held_tokens, tokens, account.month)
    all[5] = budget_wait(quota.usd_per_day, account.day_usd + held_usd, usd, account.day)
    all[6] = budget_wait(quota.usd_per_month, account.month_usd + held_usd, usd, account.month)
  end
  return all
end

-- The refusal that lasts longest; of two that last as long, the first.
local function refusal()
  local longest
  for _, side in ipairs(sides) do
    local all = waits(side.quota, side.account)
    for reason = 0, 6 do
      local wait = all[reason]
      if wait and (not longest or wait > longest.wait) then
        longest = { reason = reason, whose = side.whose, wait = wait }
      end
    end
  end
  return longest
end

local function asks_seed()
  for _, side in ipairs(sides) do
    if side.quota.has_budget and not side.account.seeded and not counted then return true end
  end
  return false
end

local function window(taken, rate, burst)
  return { burst, floor(max(burst * PARTS - taken, 0) / PARTS), min(full_in(taken, rate), SPAN_MAX) }
end

-- Of a rate's windows the one with less left; zeros where there is none.
local function tighter(of)
  local tightest
  for _, side in ipairs(sides) do
    local one = of(side.quota, side.account)
    if one and (not tightest or one[2] < tightest[2]) then tightest = one end
  end
  return tightest or { 0, 0, 0 }
end

local function answer(decision, reason, whose, retry)
  local requests = tighter(function(quota, account)
    return quota.request_rate and window(account.requests, quota.request_rate, quota.request_burst)
  end)
  local tokens = tighter(function(quota, account)
    return quota.token_rate and window(account.tokens, quota.token_rate, quota.token_burst)
  end)
  save()
  return { decision, reason, whose, retry, requests[1], requests[2], requests[3], tokens[1], tokens[2], tokens[3] }
end

local function charge(side)
  local quota, account = side.quota, side.account
  local charged = {
    requests = quota.request_rate ~= nil, tokens = quota.token_rate ~= nil, budget = quota.has_budget and not counted,
  }
  account.open = account.open + 1
  account.requests = take(account.requests, account.request_rate, 1)
  account.tokens = take(account.tokens, account.token_rate, asked.tokens)
  if charged.budget then add(account, 'held', asked.tokens, asked.usd) end
  return charged
end

if call('HEXISTS', OPEN, asked.id) == 1 then
  return answer(GRANTED, 0, 0, 0)
end
local no = refusal()
if no then
  return answer(REFUSED, no.reason, no.whose, no.wait == NEVER and -1 or no.wait)
end
if asks_seed() then
  return answer(UNSEEDED, 0, 0, 0)
end
local open = {
  tokens = asked.tokens, usd = asked.usd, counted = counted, key = asked.of_key and asked.key,
  budgeted = asked.tenant.has_budget or asked.of_key ~= nil and asked.of_key.has_budget,
}
open.of_tenant = charge(sides[1])
open.of_key = sides[2] and charge(sides[2])
write_open(asked.id, open)
call('ZADD', LEASES, now + LEASE_MS, asked.id)
return answer(GRANTED, 0, 0, 0)
