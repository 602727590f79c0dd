//! Tokens: JWT (RFC 7519), signed, in compact form (RFC 7515, section 7.1): `header.claims.signature`, each base64url.
//!
//! Nothing of a token is believed before its signature is found good, but for what selects the keys to try: the `kid` of its header and its
//! `iss`.

mod claims;
mod header;
mod members;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

pub(super) use self::{
    claims::{Claims, NAME_BYTES},
    header::Header,
};
use super::Denied;

/// The longest a token may be, in bytes; longer ones are not looked at.
pub const MAX_BYTES: usize = 8 * 1024;

/// A token, taken apart.
pub(super) struct Compact<'a> {
    pub(super) header: Header,
    /// The JSON of the claims.
    pub(super) claims: Vec<u8>,
    /// What is signed.
    pub(super) message: &'a str,
    /// In base64url.
    pub(super) signature: &'a str,
}

impl<'a> Compact<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, Denied> {
        if token.len() > MAX_BYTES {
            return Err(Denied::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Denied::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(Denied::Malformed)?;
        // A fourth part is no base64url. Nor is what has bits to spare at its end, so that a signature is written in one way alone.
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Denied::Malformed);
        Ok(Self {
            header: Header::parse(&decode(header)?)?,
            claims: decode(claims)?,
            message,
            signature,
        })
    }
}
