//! Who a request acts for, and whether it may.

use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::auth::authorize;
use crate::caller::{Caller, Scope};
use crate::http::{App, Problem};
use crate::metrics::Route;
use crate::outcome::Outcome;

/// A scope as a type, so that a handler's signature says what it demands.
pub(in crate::http) trait Demand {
    const SCOPE: Scope;
}

macro_rules! demands {
    ($($name:ident),*) => {$(
        pub(in crate::http) struct $name;

        impl Demand for $name {
            const SCOPE: Scope = Scope::$name;
        }
    )*};
}

demands!(Cancel, Operate, Read, Submit);

/// A caller whose credential has the scope. A handler gets its caller in no other way.
pub(in crate::http) struct Authorized<D> {
    pub caller: Caller,
    demand: PhantomData<D>,
}

impl<D: Demand> FromRequestParts<Arc<App>> for Authorized<D> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let caller = app.authenticator.authenticate(&parts.headers).await;
        let authorized = caller.and_then(|caller| {
            authorize(&caller, D::SCOPE)?;
            Ok(caller)
        });
        match authorized {
            Ok(caller) => {
                app.metrics.authenticated(Outcome::Accepted);
                Ok(Self {
                    caller,
                    demand: PhantomData,
                })
            }
            Err(refusal) => {
                let problem = Problem::Credential(refusal);
                app.metrics.authenticated(problem.outcome());
                app.metrics.request_ended(Route::Any, problem.outcome());
                Err(problem)
            }
        }
    }
}
