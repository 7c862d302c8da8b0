//! minisign public keys in settings.

use minisign_verify::PublicKey;

/// Reads a key: the second line of a `.pub` file created by `minisign -G`, or the whole file.
pub(crate) fn public_key(text: &str) -> Result<PublicKey, String> {
    let key = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    PublicKey::from_base64(key).map_err(|error| {
        format!(
            "has {text:?}, which is no public key of minisign ({error}): give the second line of the .pub file that minisign -G writes"
        )
    })
}
