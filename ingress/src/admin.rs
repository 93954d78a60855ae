//! edge: the administration, on a listener of its own: tenants, roles and keys; who changed what; what was used.
//!
//! A caller's role says whether they may look (`admin: read`) or change (`admin: write`); who comes with a scope may do neither.
//! What the configuration file says can be looked at here and changed there only, so that each object has one source.

mod ask;
mod audit;
mod change;
mod dead_letters;
mod journals;
mod keys;
mod limits;
mod named;
mod rotation;
mod standing;
mod view;
mod webhooks;

use crate::exchange::{Arrival, Exchange};
use crate::gate::Gate;
use crate::native::{self, Answered, Refused};
use audit::Author;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use http::{HeaderMap, Method};
use shared::config::Limits;
use shared::error::{Code, Failure};
use shared::identity::{Admin, Caller, Peppers, Role, TenantRecord};
use std::sync::Arc;

/// Bytes of one body: a role with its longest lists.
const BODY_BYTES_MAX: usize = 128 * 1024;

/// What the handlers share.
struct Office {
    gate: Arc<Gate>,
    /// `None`: the configuration has none, and no keys can be issued.
    peppers: Option<Peppers>,
    limits: Limits,
}

pub(crate) fn router(gate: Arc<Gate>) -> Router {
    let limits = Limits { body_bytes_max: BODY_BYTES_MAX, ..gate.config.limits.clone() };
    let office = Arc::new(Office { peppers: gate.config.peppers.as_ref().map(Peppers::new), limits, gate });
    let inside = middleware::from_fn_with_state(Arc::clone(&office), enter);
    Router::new()
        .route("/admin/tenants", get(named::list::<TenantRecord>))
        .route(
            "/admin/tenants/{name}",
            get(named::one::<TenantRecord>).put(named::put::<TenantRecord>).delete(named::delete::<TenantRecord>),
        )
        .route("/admin/roles", get(named::list::<Role>))
        .route("/admin/roles/{name}", get(named::one::<Role>).put(named::put::<Role>).delete(named::delete::<Role>))
        .route("/admin/keys", get(keys::list).post(keys::create))
        .route("/admin/keys/{id}", get(keys::one).delete(keys::delete))
        .route("/admin/keys/{id}/rotate", post(rotation::rotate))
        .route("/admin/keys/{id}/block", post(keys::block))
        .route("/admin/keys/{id}/unblock", post(keys::unblock))
        .route("/admin/limits/{tenant}", get(limits::of_tenant))
        .route("/admin/dead-letters", get(dead_letters::list))
        .route("/admin/dead-letters/{id}", get(dead_letters::one).delete(dead_letters::purge))
        .route("/admin/dead-letters/{id}/redrive", post(dead_letters::redrive))
        .route("/admin/audit", get(journals::changes))
        .route("/admin/usage", get(journals::calls))
        .route("/admin/webhooks", get(webhooks::list))
        .route("/admin/webhooks/{event}/redeliver", post(webhooks::redeliver))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(inside)
        .with_state(office)
}

/// Lets in who may: everybody else hears nothing of what is here.
async fn enter(State(office): State<Arc<Office>>, mut request: Request, next: Next) -> Response {
    let arrival = request.extensions().get::<Arrival>().cloned().expect("the server stamps every request");
    let from = arrival.peer;
    let mut exchange = office.gate.begin(arrival, None);
    match pass(&office, request.method().clone(), request.headers().clone(), &mut exchange).await {
        Ok(caller) => request.extensions_mut().insert(Author::new(&caller, from)),
        Err(failure) => return exchange.refuse(&failure),
    };
    let response = next.run(request).await;
    native::note_end(&mut exchange, &response);
    response
}

async fn pass(office: &Office, method: Method, headers: HeaderMap, exchange: &mut Exchange) -> Result<Arc<Caller>, Failure> {
    let caller = office.gate.auth.identify(&headers).await?;
    exchange.identify(Arc::clone(&caller));
    let needed = if method == Method::GET { Admin::Read } else { Admin::Write };
    if caller.admin() < needed {
        let message = "Your key or role has not these admin rights: use a key without a scope, of a role that has them";
        return Err(Failure::new(Code::PermissionDenied, message));
    }
    Ok(caller)
}

async fn unknown_path() -> Refused {
    Refused(Failure::new(Code::NotFound, "There is nothing at this path: see the administration in docs/API.md"))
}

/// The router adds the `Allow` header.
async fn wrong_method() -> Refused {
    Refused(Failure::new(Code::MethodNotAllowed, "This path takes another method: see the Allow header"))
}
