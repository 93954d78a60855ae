-- asked: totals, keys = { { name, totals }, … }, as_of, counted = ids, counted_from, force; totals: tokens and money of the
-- day, tokens and money of the month. Answers { done | already | of another day }. See quota/core/seed.rs.
local DONE, ALREADY, OF_ANOTHER_DAY = 0, 1, 2

if day_end(asked.as_of) ~= day_end(now) then
  save()
  return { OF_ANOTHER_DAY }
end

local function is_due(account)
  return asked.force or not account.seeded
end

local tenant = account_of(nil)
local is_tenant_due = is_due(tenant)
local due = {}
for _, key in ipairs(asked.keys) do
  if is_due(account_of(key[1])) then due[key[1]] = key[2] end
end
if not is_tenant_due and not next(due) then
  save()
  return { ALREADY }
end

local function count(open, account, charged)
  if charged.budget then
    release(account, open.tokens, open.usd)
    charged.budget = false
    account.touched = true
  end
end

for _, id in ipairs(asked.counted) do
  local open = opened(id)
  if open then
    open.counted = true
    if is_tenant_due then count(open, tenant, open.of_tenant) end
    if open.key and due[open.key] then count(open, account_of(open.key), open.of_key) end
    write_open(id, open)
  end
  remember(id, 0, 0, nil)
end

local unlogged = {}
local since = max(asked.counted_from, now - RECENT_MS + 1)
for _, id in ipairs(call('ZRANGEBYSCORE', AGES, since, '+inf')) do
  local entry = cmsgpack.unpack(call('HGET', RECENT, id))
  if entry.tokens > 0 or entry.usd > 0 then unlogged[#unlogged + 1] = entry end
end

local function take_over(account, totals, key)
  advance(account)
  account.day_tokens, account.day_usd, account.month_tokens, account.month_usd = unpack(totals)
  for _, entry in ipairs(unlogged) do
    if not key or entry.key == key then
      if day_end(entry.at) == account.day then add(account, 'day', entry.tokens, entry.usd) end
      if month_end(entry.at) == account.month then add(account, 'month', entry.tokens, entry.usd) end
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
