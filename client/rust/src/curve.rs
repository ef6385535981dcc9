//! Keys for a feed that other hosts reach: ZeroMQ's CURVE, from the files that `python -m scalesim_client.curve` makes.

use std::fmt;
use std::fs::read;
use std::path::Path;

const KEY_CHARACTERS: usize = 40;
const Z85: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/// The daemon's public key and a publisher's own pair, each as 40 characters of Z85.
#[derive(Clone)]
pub struct Curve {
    pub(crate) server: String,
    pub(crate) public: String,
    pub(crate) secret: String,
}

impl fmt::Debug for Curve {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        to.debug_struct("Curve").field("server", &self.server).field("public", &self.public).finish_non_exhaustive()
    }
}

impl Curve {
    /// Fails for what is no key.
    pub fn new(server: &str, public: &str, secret: &str) -> Result<Self, String> {
        for (name, key) in [("server", server), ("public", public), ("secret", secret)] {
            if !is_key(key) {
                return Err(format!("{name} is no key: it has {KEY_CHARACTERS} characters of Z85"));
            }
        }
        Ok(Self { server: server.into(), public: public.into(), secret: secret.into() })
    }

    /// Read a publisher's `NAME.key_secret`, and the daemon's `NAME.key`.
    pub fn load(own: impl AsRef<Path>, server: impl AsRef<Path>) -> Result<Self, String> {
        let (ours, theirs) = (lines_of(own.as_ref())?, lines_of(server.as_ref())?);
        let Some(secret) = value_in(&ours, "secret-key") else {
            let path = own.as_ref().display();
            return Err(format!("{path} holds no secret key: name the file that ends in .key_secret"));
        };
        let public = |lines| value_in(lines, "public-key").unwrap_or_default();
        Self::new(public(&theirs), public(&ours), secret)
    }
}

fn lines_of(file: &Path) -> Result<String, String> {
    let bytes = read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn value_in<'a>(lines: &'a str, name: &str) -> Option<&'a str> {
    let line = lines.lines().find(|line| line.trim_start().starts_with(name))?;
    let (_, value) = line.split_once('=')?;
    Some(value.trim_matches([' ', '\t', '\r', '\'', '"'].as_slice()))
}

/// Five digits are four bytes.
fn is_key(key: &str) -> bool {
    let digits: Option<Vec<u64>> = key.chars().map(|each| Z85.find(each).map(|digit| digit as u64)).collect();
    digits.is_some_and(|digits| {
        digits.len() == KEY_CHARACTERS
            && digits.chunks(5).all(|five| five.iter().fold(0, |sum, digit| sum * 85 + digit) <= u64::from(u32::MAX))
    })
}
