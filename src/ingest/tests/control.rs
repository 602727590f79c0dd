//! Taking back what was granted, over gRPC.

use std::time::Duration;

use tidings_proto::v1::{
    ListRevocationsRequest, RevokeRequest, UserTokens, control_client::ControlClient, revocation,
    revoke_request::Target,
};
use tonic::{Code, transport::Channel};
use tonic_types::StatusExt as _;

use super::{
    Node, Rates,
    double::TestJournal,
    to,
    who::{BOSS, ORDERS, jwt, reason, some, with},
};
use crate::{
    auth::{Auth, Revocation},
    journal::{AppendError, DiskFull},
};

async fn start(auth: Auth) -> (Node, ControlClient<Channel>) {
    let node = Node::start_for(TestJournal::prompt(), auth, Rates::default()).await;
    let client = ControlClient::connect(format!("http://{}", node.address))
        .await
        .unwrap();
    (node, client)
}

fn token(id: &str) -> RevokeRequest {
    RevokeRequest {
        target: Some(Target::TokenId(id.to_owned())),
        ..RevokeRequest::default()
    }
}

#[tokio::test]
async fn what_is_revoked_is_an_event_and_counts_at_once() {
    let (node, mut control) = start(some()).await;
    let carol = jwt(Duration::from_secs(3_600));
    let mut client = node.client().await;
    client.publish(with(&carol, to("orders/1"))).await.unwrap();
    control.revoke(with(BOSS, token("c1"))).await.unwrap();
    assert_eq!(node.journal.topics(), ["orders/1", "tidings.revocations"]);
    let stored = Revocation::from_json(&node.journal.data()[1]).unwrap();
    assert_eq!(node.auth.revocations().list(crate::model::UnixMillis::now()), [stored]);
    let status = client.publish(with(&carol, to("orders/1"))).await.unwrap_err();
    assert_eq!(
        (status.code(), &*reason(&status)),
        (Code::Unauthenticated, "REVOKED_TOKEN")
    );

    let user = UserTokens {
        user: "dave".to_owned(),
        block: true,
        ..UserTokens::default()
    };
    let request = RevokeRequest {
        target: Some(Target::User(user.clone())),
        ..RevokeRequest::default()
    };
    let revoked = control
        .revoke(with(BOSS, request))
        .await
        .unwrap()
        .into_inner()
        .revocation
        .unwrap();
    assert_eq!(revoked.target, Some(revocation::Target::User(user)));
    let list = control
        .list_revocations(with(BOSS, ListRevocationsRequest {}))
        .await
        .unwrap();
    let list = list.into_inner().revocations;
    assert!(list.len() == 2 && list.contains(&revoked), "{list:?}");
}

#[tokio::test]
async fn only_who_may_revokes() {
    let (node, mut control) = start(some()).await;
    for (denied, code, expected) in [
        (control.revoke(token("x")).await, Code::Unauthenticated, "NO_TOKEN"),
        (
            control.revoke(with(ORDERS, token("x"))).await,
            Code::PermissionDenied,
            "FORBIDDEN_ACTION",
        ),
        (
            control.revoke(with(BOSS, token(""))).await,
            Code::InvalidArgument,
            "REFUSED",
        ),
    ] {
        let status = denied.unwrap_err();
        assert_eq!((status.code(), &*reason(&status)), (code, expected));
    }
    let list = control.list_revocations(with(ORDERS, ListRevocationsRequest {})).await;
    assert_eq!(list.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(node.journal.appended(), 0);
}

#[tokio::test]
async fn what_is_not_durable_is_not_revoked() {
    let (node, mut control) = start(some()).await;
    let full = DiskFull {
        used_percent: 99,
        high_water_percent: 95,
        available: 1,
        reserve: 2,
    };
    node.journal.refuse(AppendError::DiskFull(full));
    let status = control.revoke(with(BOSS, token("x"))).await.unwrap_err();
    assert_eq!(
        (status.code(), &*reason(&status)),
        (Code::ResourceExhausted, "DISK_FULL")
    );
    assert!(status.get_error_details().retry_info().is_some());
    assert!(node.auth.revocations().list(crate::model::UnixMillis::now()).is_empty());
}

#[tokio::test]
async fn where_nobody_is_asked_anybody_may_revoke() {
    let (node, mut control) = start(Auth::open()).await;
    control.revoke(token("x")).await.unwrap();
    assert_eq!(node.journal.topics(), ["tidings.revocations"]);
}
