-- asked: id, key = name, used = whether it ran, tokens, usd. Answers { what was found, overrun }.
local WAS_OPEN, UNKNOWN, AGAIN = 0, 1, 2

local function settle(account, charged, open)
  advance(account)
  account.open = max(account.open - 1, 0)
  if charged.budget then release(account, open.tokens, open.usd) end
  if asked.used then
    if charged.tokens then
      account.tokens = take(account.tokens, account.token_rate, max(asked.tokens - open.tokens, 0))
      account.tokens = give_back(account.tokens, max(open.tokens - asked.tokens, 0))
    end
    if charged.budget then charge_budget(account, asked.tokens, asked.usd) end
  else
    if charged.requests then account.requests = give_back(account.requests, 1) end
    if charged.tokens then account.tokens = give_back(account.tokens, open.tokens) end
  end
end

local function settle_open(open)
  remove_open(asked.id)
  each_side(open, function(account, charged) settle(account, charged, open) end)
  if not asked.used then return { WAS_OPEN, 0 } end
  if open.budgeted then
    forget_old()
    if not open.counted then
      remember(asked.id, asked.tokens, asked.usd, open.key)
    elseif not is_recent(asked.id) then
      remember(asked.id, 0, 0, nil)
    end
  end
  return { WAS_OPEN, max(asked.tokens - open.tokens, 0) }
end

local function settle_unknown()
  if not asked.used or is_recent(asked.id) then return { AGAIN, 0 } end
  for _, account in ipairs({ account_of(nil), asked.key and account_of(asked.key) }) do
    if account.seeded then
      advance(account)
      charge_budget(account, asked.tokens, asked.usd)
    end
  end
  forget_old()
  remember(asked.id, asked.tokens, asked.usd, asked.key)
  return { UNKNOWN, 0 }
end

local open = opened(asked.id)
local answer = open and settle_open(open) or settle_unknown()
save()
return answer
