//! edge: the file's `webhooks`: where they may lead, and those of each tenant.

use super::{Reader, literal_key};
use crate::config::webhooks::WEBHOOKS_MAX;
use crate::config::{ConfigError, EventKind, Secret, SigningSecret, Webhook, WebhookPolicy};
use serde::Deserialize;
use serde_saphyr::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileWebhook {
    url: String,
    secret: String,
    #[serde(default = "all")]
    events: Vec<String>,
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

impl Reader<'_> {
    pub(super) fn webhooks(
        &self,
        tenant: &str,
        files: Vec<Spanned<FileWebhook>>,
        policy: &WebhookPolicy,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Webhook>, ConfigError> {
        let mut webhooks: Vec<Webhook> = Vec::new();
        for file in files {
            let refused = |why: String| self.error(file.referenced.line(), format!("tenants[].webhooks of `{tenant}`: {why}"));
            if webhooks.len() == WEBHOOKS_MAX {
                return Err(refused(format!("more than {WEBHOOKS_MAX}")));
            }
            if Secret::is_literal(&file.value.secret) {
                warnings.push(literal_key(&format!("a webhook of tenant `{tenant}`")));
            }
            let webhook = webhook(&file.value, policy).map_err(refused)?;
            if webhooks.iter().any(|known| known.url == webhook.url) {
                return Err(refused("this url is there twice".to_owned()));
            }
            webhooks.push(webhook);
        }
        Ok(webhooks)
    }
}

fn webhook(file: &FileWebhook, policy: &WebhookPolicy) -> Result<Webhook, String> {
    let url = policy.target(&file.url)?;
    let secret = Secret::resolve(&file.secret).and_then(|secret| SigningSecret::parse(secret.expose()));
    let secret = secret.map_err(|why| format!("secret: {why}"))?;
    let mut events = Vec::new();
    for pattern in &file.events {
        events.extend(EventKind::matching(pattern)?.into_iter().filter(|kind| !events.contains(kind)).collect::<Vec<_>>());
    }
    Ok(Webhook { url, secret, events })
}

#[cfg(test)]
mod tests {
    use crate::config::{EventKind, parse};

    const SECRET: &str = "whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5";

    fn file(webhooks: &str) -> String {
        format!("tenants:\n- name: t\n  webhooks:\n{webhooks}")
    }

    #[test]
    fn a_webhook_hears_what_it_asks_for_and_is_printed_without_its_secrets() {
        let yaml =
            file(&format!("  - {{ url: 'https://h.example/canary?token=canary', secret: {SECRET}, events: [ batch.*, batch.failed ] }}\n"));
        let config = parse(&yaml, "f").unwrap();
        assert_eq!(config.tenants[0].webhooks[0].events.len(), 4);
        assert_eq!(config.warnings.len(), 1, "the secret stands in the file");
        let printed = config.to_yaml();
        assert!(printed.contains("https://h.example") && !printed.contains("canary") && !printed.contains("whsec"), "{printed}");
        let all = parse(&file(&format!("  - {{ url: 'https://h.example/', secret: {SECRET} }}\n")), "f").unwrap();
        assert_eq!(all.tenants[0].webhooks[0].events, EventKind::ALL);
    }

    #[test]
    fn what_is_wrong_with_a_webhook_is_named_with_its_line_and_not_repeated() {
        let one = |url: &str, secret: &str, more: &str| format!("  - {{ url: '{url}', secret: '{secret}'{more} }}\n");
        let good = one("https://h.example/", SECRET, "");
        for (webhooks, line, word) in [
            (one("https://10.0.0.1/canary", SECRET, ""), 4, "public"),
            (one("https://h.example/", "whsec_canary", ""), 4, "base64"),
            (one("https://h.example/", SECRET, ", events: [ batch.done ]"), 4, "batch.done"),
            (format!("{good}{good}"), 5, "twice"),
            (one("https://h.example/", "env:TIDEMILL_TEST_NOT_SET", ""), 4, "TIDEMILL_TEST_NOT_SET"),
        ] {
            let error = parse(&file(&webhooks), "f").unwrap_err();
            assert_eq!(error.line, line, "{error}");
            assert!(error.what.contains(word) && !error.what.contains("canary"), "{error}");
        }
    }
}
