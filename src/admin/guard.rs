//! The token of the admin port.

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::Response,
};

use crate::{auth::TokenHash, model::Secret, problem::Problem};

/// Knows the token, by its hash.
#[derive(Clone)]
pub(super) struct Guard(TokenHash);

impl Guard {
    pub(super) fn new(token: &Secret) -> Self {
        Self(TokenHash::of(token.reveal()))
    }

    fn lets_in(&self, request: &Request) -> bool {
        let mut values = request.headers().get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return false;
        };
        let token = value.to_str().ok().and_then(|text| text.split_once(' '));
        token.is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case("bearer") && TokenHash::of(token.trim()) == self.0
        })
    }
}

/// Lets in who brings the token, and everybody if there is none.
pub(super) async fn admit(State(guard): State<Option<Guard>>, request: Request, next: Next) -> Response {
    if guard.is_none_or(|guard| guard.lets_in(&request)) {
        return next.run(request).await;
    }
    let problem = Problem::new(
        StatusCode::UNAUTHORIZED,
        "who is asking? bring the token of the admin port (`admin.token`): `authorization: Bearer …`",
    );
    let mut response = problem.into_response().map(Body::from);
    let challenge = HeaderValue::from_static("Bearer realm=\"tidings admin\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}
