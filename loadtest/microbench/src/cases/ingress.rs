//! core: the checks of bodies as they come in.

use super::{Case, samples};
use ::ingress::measured::{check_chat, check_embedding};
use shared::config::Limits;

pub(super) fn cases() -> Vec<Case> {
    let embedding = |name: &str, count: usize| {
        Case::new(name, move |meter| {
            let (mut body, limits) = (samples::embedding_body(count), Limits::default());
            meter.run(&mut body, |_| (), |body, ()| check_embedding(body, &limits).expect("a sound body"));
        })
    };
    let chat = Case::new("ingress/check/chat-1-kib", |meter| {
        let (mut body, limits) = (samples::chat_body(), Limits::default());
        meter.run(&mut body, |_| (), |body, ()| check_chat(body, &limits).expect("a sound body"));
    });
    vec![chat, embedding("ingress/check/embedding-1-text", 1), embedding("ingress/check/embedding-64-texts", 64)]
}
