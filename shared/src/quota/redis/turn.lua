-- asked: quotas; sides = { { number of the tenant's quota, key, number of its quota }, … }: what requests are counted against;
-- ended = ids, keys, ran = whether it ran, tokens, usd; asked = ids, sides = numbers, tokens, usd. What has ended comes first:
-- what it gives back is there for those who ask.
-- Answers { what was found, overrun } of each that ended, then of each that asked { decision, reason, whose, retry (-1: never),
-- limit, remaining, reset of requests, the same of tokens }, all in one row.
local WAS_OPEN, UNKNOWN, AGAIN = 0, 1, 2
local GRANTED, REFUSED, UNSEEDED = 0, 1, 2

local answer, told = {}, 0

-- Settlements.

local function settle(account, flags, reserved, reserved_usd, ran, tokens, usd)
  advance(account)
  account.open = max(account.open - 1, 0)
  local of_tokens, of_budget = band(flags, TOKENS) > 0, band(flags, BUDGET) > 0
  if of_budget then release(account, reserved, reserved_usd) end
  if ran then
    if of_tokens then
      account.tokens = take(account.tokens, account.token_rate, max(tokens - reserved, 0))
      account.tokens = give_back(account.tokens, max(reserved - tokens, 0))
    end
    if of_budget then charge_budget(account, tokens, usd) end
  else
    if band(flags, REQUESTS) > 0 then account.requests = give_back(account.requests, 1) end
    if of_tokens then account.tokens = give_back(account.tokens, reserved) end
  end
end

local function settle_open(open, id, ran, tokens, usd)
  local reserved, reserved_usd, flags, key = struct.unpack(OPEN_FORMAT, open)
  remove_open(id)
  settle(account_of(''), flags, reserved, reserved_usd, ran, tokens, usd)
  if key ~= '' then settle(account_of(key), floor(flags / OF_KEY), reserved, reserved_usd, ran, tokens, usd) end
  if not ran then return WAS_OPEN, 0 end
  if band(flags, BUDGETED) > 0 then
    if band(flags, COUNTED) == 0 then
      remember(id, tokens, usd, key)
    elseif not is_recent(id) then
      remember(id, 0, 0, '')
    end
  end
  return WAS_OPEN, max(tokens - reserved, 0)
end

local function settle_late(account, tokens, usd)
  if account.seeded then
    advance(account)
    charge_budget(account, tokens, usd)
  end
end

local function settle_unknown(id, key, ran, tokens, usd)
  if not ran or is_recent(id) then return AGAIN, 0 end
  settle_late(account_of(''), tokens, usd)
  if key ~= '' then settle_late(account_of(key), tokens, usd) end
  remember(id, tokens, usd, key)
  return UNKNOWN, 0
end

-- Reservations.

-- A quota and the account it limits, and as flags what a reservation is charged for there.
local function side(quota, key)
  local flags = quota.has_budget and BUDGET or 0
  if quota.request_rate then flags = flags + REQUESTS end
  if quota.token_rate then flags = flags + TOKENS end
  return { quota = quota, account = account_of(key), flags = flags }
end

local all_sides = {}
for i, numbers in ipairs(asked.sides) do
  local of_tenant, key, of_key = unpack(numbers, 1, 3)
  all_sides[i] = { side(asked.quotas[of_tenant], ''), of_key and side(asked.quotas[of_key], key), key = of_key and key or '' }
end

local function adopt(account, quota)
  advance(account)
  account.request_rate = quota.request_rate or 0
  account.token_rate = quota.token_rate or 0
  if account.request_rate == 0 then account.requests = 0 end
  if account.token_rate == 0 then account.tokens = 0 end
  if not quota.has_budget then account.seeded = false end
end

local function bucket_wait(taken, rate, burst, units)
  local missing = taken + (units - burst) * PARTS
  if missing <= 0 then return nil end
  return units > burst and NEVER or min(ceil(missing / rate), SPAN_MAX)
end

local function budget_wait(limit, sum, amount, ends)
  if not limit or sum + amount <= limit then return nil end
  return amount > limit and NEVER or min(max(ends - now, 0), SPAN_MAX)
end

-- The refusal that lasts longest; of two that last as long, the first. Reasons are numbered as in Reason::ALL.
local longest, why, whose

local function consider(wait, reason, of)
  if wait and (not longest or wait > longest) then longest, why, whose = wait, reason, of end
end

local function consider_rates(quota, account, tokens, of)
  if quota.request_rate then
    consider(bucket_wait(account.requests, quota.request_rate, quota.request_burst, 1), 0, of)
  end
  if quota.token_rate then
    consider(bucket_wait(account.tokens, quota.token_rate, quota.token_burst, tokens), 1, of)
  end
  if quota.concurrency and account.open >= quota.concurrency then
    consider(CONCURRENCY_RETRY_MS, 2, of)
  end
end

local function consider_budgets(quota, account, tokens, usd, of)
  if account.seeded then
    local held_tokens, held_usd = account.held_tokens, account.held_usd
    consider(budget_wait(quota.tokens_per_day, account.day_tokens + held_tokens, tokens, account.day), 3, of)
    consider(budget_wait(quota.tokens_per_month, account.month_tokens + held_tokens, tokens, account.month), 4, of)
    consider(budget_wait(quota.usd_per_day, account.day_usd + held_usd, usd, account.day), 5, of)
    consider(budget_wait(quota.usd_per_month, account.month_usd + held_usd, usd, account.month), 6, of)
  end
end

local function asks_seed(sides)
  for _, side in ipairs(sides) do
    if side.quota.has_budget and not side.account.seeded then return true end
  end
  return false
end

local function charge(side, tokens, usd, counted)
  local account = side.account
  account.open = account.open + 1
  account.requests = take(account.requests, account.request_rate, 1)
  account.tokens = take(account.tokens, account.token_rate, tokens)
  if side.quota.has_budget then
    if counted then return side.flags - BUDGET end
    hold(account, tokens, usd)
  end
  return side.flags
end

local function decide(sides, id, tokens, usd)
  if opened(id) then return GRANTED, 0, 0, 0 end
  local tenant, key = sides[1], sides[2]
  local budgeted = tenant.quota.has_budget or key and key.quota.has_budget
  local counted = budgeted and is_recent(id)
  longest = nil
  for i, side in ipairs(sides) do
    consider_rates(side.quota, side.account, tokens, i - 1)
    consider_budgets(side.quota, side.account, counted and 0 or tokens, counted and 0 or usd, i - 1)
  end
  if longest then return REFUSED, why, whose, longest == NEVER and -1 or longest end
  if not counted and asks_seed(sides) then return UNSEEDED, 0, 0, 0 end
  local flags = (budgeted and BUDGETED or 0) + (counted and COUNTED or 0) + charge(tenant, tokens, usd, counted)
  if key then flags = flags + charge(key, tokens, usd, counted) * OF_KEY end
  write_open(id, tokens, usd, flags, sides.key)
  leased[id] = true
  return GRANTED, 0, 0, 0
end

-- Of a rate's windows the one with less left; zeros where there is none.
local function tighter(sides, taken, rate, burst)
  local limit, left, full = 0, 0, 0
  for _, side in ipairs(sides) do
    local size = side.quota[burst]
    if size then
      local used = side.account[taken]
      local remaining = floor(max(size * PARTS - used, 0) / PARTS)
      if limit == 0 or remaining < left then
        limit, left, full = size, remaining, min(full_in(used, side.quota[rate]), SPAN_MAX)
      end
    end
  end
  return limit, left, full
end

-- The turn.

local ended, wanted = asked.ended, asked.asked
expire(EXPIRED_MAX + #wanted.ids)
read(OPEN, ended.ids, opens)
read(OPEN, wanted.ids, opens)
read(RECENT, wanted.ids, recents)

for i, id in ipairs(ended.ids) do
  local key, ran, tokens, usd = ended.keys[i], ended.ran[i], ended.tokens[i], ended.usd[i]
  local open = opened(id)
  if open then
    answer[told + 1], answer[told + 2] = settle_open(open, id, ran, tokens, usd)
  else
    answer[told + 1], answer[told + 2] = settle_unknown(id, key, ran, tokens, usd)
  end
  told = told + 2
end

local adopted
for i, id in ipairs(wanted.ids) do
  local sides = all_sides[wanted.sides[i]]
  if sides ~= adopted then
    for _, side in ipairs(sides) do adopt(side.account, side.quota) end
    adopted = sides
  end
  answer[told + 1], answer[told + 2], answer[told + 3], answer[told + 4] = decide(sides, id, wanted.tokens[i], wanted.usd[i])
  answer[told + 5], answer[told + 6], answer[told + 7] = tighter(sides, 'requests', 'request_rate', 'request_burst')
  answer[told + 8], answer[told + 9], answer[told + 10] = tighter(sides, 'tokens', 'token_rate', 'token_burst')
  told = told + 10
end
save()
return answer
