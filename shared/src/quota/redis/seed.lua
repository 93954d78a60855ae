-- asked: totals, keys = { { name, totals }, … }, as_of, counted = ids, counted_from, force; totals: tokens and money of the
-- day, tokens and money of the month. Answers { done | already | of another day }. See quota/core/seed.rs.
local DONE, ALREADY, OF_ANOTHER_DAY = 0, 1, 2

expire(EXPIRED_MAX)

if day_end(asked.as_of) ~= day_end(now) then
  save()
  return { OF_ANOTHER_DAY }
end

local function is_due(account)
  return asked.force or not account.seeded
end

local tenant = account_of('')
local is_tenant_due = is_due(tenant)
local due = {}
for _, key in ipairs(asked.keys) do
  if is_due(account_of(key[1])) then due[key[1]] = key[2] end
end
if not is_tenant_due and not next(due) then
  save()
  return { ALREADY }
end

-- An account that takes the totals over holds nothing any more for what they count. Returns the flags that are left.
local function count(account, is_account_due, flag, flags, tokens, usd)
  if is_account_due and band(flags, flag) > 0 then
    release(account, tokens, usd)
    account.touched = true
    return flags - flag
  end
  return flags
end

read(OPEN, asked.counted, opens)
for _, id in ipairs(asked.counted) do
  local open = opens[id]
  if open then
    local tokens, usd, flags, key = struct.unpack(OPEN_FORMAT, open)
    flags = bit.bor(flags, COUNTED)
    flags = count(tenant, is_tenant_due, BUDGET, flags, tokens, usd)
    flags = key == '' and flags or count(account_of(key), due[key], BUDGET * OF_KEY, flags, tokens, usd)
    write_open(id, tokens, usd, flags, key)
  end
  remember(id, 0, 0, '')
end
save_recent()

local unlogged = {}
local lately = call('ZRANGEBYSCORE', AGES, max(asked.counted_from, now - RECENT_MS + 1), '+inf')
read(RECENT, lately, recents)
for _, id in ipairs(lately) do
  if recents[id] then
    local at, tokens, usd, key = struct.unpack(RECENT_FORMAT, recents[id])
    if tokens > 0 or usd > 0 then unlogged[#unlogged + 1] = { at = at, tokens = tokens, usd = usd, key = key } end
  end
end

local function take_over(account, totals, key)
  advance(account)
  account.day_tokens, account.day_usd, account.month_tokens, account.month_usd = unpack(totals)
  for _, entry in ipairs(unlogged) do
    if not key or entry.key == key then
      if day_end(entry.at) == account.day then charge_day(account, entry.tokens, entry.usd) end
      if month_end(entry.at) == account.month then charge_month(account, entry.tokens, entry.usd) end
    end
  end
  account.seeded = true
end

if is_tenant_due then take_over(tenant, asked.totals, nil) end
for key, totals in pairs(due) do
  take_over(account_of(key), totals, key)
end
save()
return { DONE }
