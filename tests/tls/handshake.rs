//! Handshakes as openssl makes them, and what it says of them.

use std::{net::SocketAddr, path::Path, process::Stdio};

use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::patiently;

/// Shakes hands and leaves. What openssl says, and whether it was let in.
pub(crate) async fn shake(address: SocketAddr, ca: &Path, arguments: &[&str]) -> (String, bool) {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-servername", "localhost"])
        .args(["-verify_return_error", "-CAfile"])
        .arg(ca)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = patiently("a handshake", output).await.expect("openssl is installed");
    let told = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&told).into_owned(), output.status.success())
}

/// The number of the certificate that is shown now.
pub(crate) async fn serial(address: SocketAddr, ca: &Path) -> String {
    let (told, let_in) = shake(address, ca, &[]).await;
    assert!(let_in, "{told}");
    let begin = told.find("-----BEGIN CERTIFICATE-----").expect("a certificate");
    let printed = Command::new("sh")
        .args(["-c", "printf '%s' \"$0\" | openssl x509 -noout -serial", &told[begin..]])
        .output();
    let printed = patiently("a number", printed).await.expect("openssl is installed");
    let printed = String::from_utf8(printed.stdout).expect("text");
    printed.trim().trim_start_matches("serial=").to_owned()
}

/// Waits until this certificate is shown.
pub(crate) async fn until_shown(address: SocketAddr, ca: &Path, wanted: &str) {
    let shown = async { while serial(address, ca).await != wanted {} };
    patiently(format_args!("certificate {wanted} being shown"), shown).await;
}

/// Shakes hands, says something, and hears it out.
pub(crate) async fn say(address: SocketAddr, ca: &Path, arguments: &[&str], words: &str) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-servername", "localhost"])
        .args(["-quiet", "-CAfile"])
        .arg(ca)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("openssl is installed");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(words.as_bytes()).await.expect("it listens");
    let output = patiently("an answer", child.wait_with_output()).await.expect("a child");
    drop(stdin);
    // Complaints come after what was heard.
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}
