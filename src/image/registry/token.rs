//! How a repository lets us in: nothing, a password with every request, or a token that another
//! server gives out.

use super::challenge::Challenge;
use super::credentials::{Login, Secret};
use super::failure::{self, Failure, Kind};
use super::http::{self, Ask, Http};
use super::reach;
use super::settings::host_of;
use crate::unit::escape::escaped;
use serde::Deserialize;
use std::time::{Duration, Instant};
use ureq::http::Uri;

/// Longest answer of a server of tokens.
const ANSWER_MAX: u64 = 1 << 20;
/// How long a token is good whose server does not say; and how much earlier it is given up.
const LIFETIME: u64 = 60;
const MARGIN: Duration = Duration::from_secs(10);
/// Most scopes that a registry may add.
const SCOPES_MAX: usize = 8;
/// What we are called by servers of tokens.
const CLIENT: &str = "terrarium";

/// What is sent as `Authorization`, and until when. By the clock that nobody sets.
#[derive(Default)]
pub struct Access {
    value: Option<String>,
    until: Option<Instant>,
}

/// A repository that wants to know who we are.
pub struct Door<'a> {
    /// The way there.
    pub http: &'a Http,
    /// Its registry.
    pub authority: &'a str,
    /// Whether that is reached with TLS.
    pub is_https: bool,
    /// Its name.
    pub repository: &'a str,
    /// Whether the registry was asked for it, or only whether it is one.
    pub is_about_us: bool,
    /// Ours for it.
    pub login: Option<&'a Login>,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Access {
    /// The value, while it is good.
    pub fn value(&self) -> Option<String> {
        let good = self.until.is_none_or(|until| Instant::now() < until);
        self.value.clone().filter(|_| good)
    }

    /// Does what the registry asks for before it lets us read.
    pub fn obtain(door: &Door<'_>, asked: &[Challenge]) -> Result<Access, Failure> {
        let login = door.login;
        let with = |scheme: &str| asked.iter().find(|challenge| challenge.scheme == scheme);
        if let Some(challenge) = with("bearer") {
            return bearer(door, challenge);
        }
        if with("basic").is_some() {
            let value = login.and_then(Login::basic);
            let value = value.ok_or_else(|| denied(door, "it wants a user"))?;
            return Ok(Access { value: Some(value), until: None });
        }
        let schemes: Vec<&str> = asked.iter().map(|challenge| challenge.scheme.as_str()).collect();
        let text = match schemes.is_empty() {
            true => "it refuses us and does not say what it wants".to_owned(),
            false => format!("it wants {}; Bearer and Basic are known", schemes.join(", ")),
        };
        Err(denied(door, &failure::clean(&text)))
    }
}

/// What a token is for: ours, and what the registry wants for this very repository. At `/v2/` it
/// names a placeholder, or nothing.
fn scopes(door: &Door<'_>, challenge: &Challenge) -> Vec<String> {
    let mut scopes = vec![format!("repository:{}:pull", door.repository)];
    let theirs = challenge.get("scope").filter(|_| door.is_about_us).unwrap_or_default();
    for scope in theirs.split_ascii_whitespace().take(SCOPES_MAX) {
        if scopes.iter().all(|own| own != scope) {
            scopes.push(scope.to_owned());
        }
    }
    scopes
}

/// Asks the server of tokens that the registry names.
fn bearer(door: &Door<'_>, challenge: &Challenge) -> Result<Access, Failure> {
    let Door { http, authority, login, .. } = *door;
    let realm = challenge.get("realm").unwrap_or_default();
    let wrong = |why: &str| {
        let text = format!("{authority} names the token server `{realm}`, {why}");
        Failure::wrong(failure::clean(&text))
    };
    let uri: Uri = realm.parse().map_err(|_| wrong("which is no address"))?;
    if uri.host().is_none() || !matches!(uri.scheme_str(), Some("https" | "http")) {
        return Err(wrong("which is no address"));
    }
    if door.is_https && uri.scheme_str() != Some("https") {
        return Err(wrong("which is not encrypted, as the registry is"));
    }
    let is_ours = http.settings.realms.iter().any(|known| *known == reach::authority(&uri));
    if login.is_some() && !is_ours && !belongs(authority, &reach::authority(&uri)) {
        return Err(wrong(
            "which is on another network than it: its login would go there; if that is meant, name \
             the server in [registry] realms",
        ));
    }
    let scopes = scopes(door, challenge);
    let service = challenge.get("service").unwrap_or_default();
    let answer = match login.map(|login| &login.secret) {
        Some(Secret::Identity(token)) => http.post_form(
            &uri,
            &[
                ("grant_type", "refresh_token"),
                ("refresh_token", token),
                ("service", service),
                ("scope", &scopes.join(" ")),
                ("client_id", CLIENT),
            ],
        )?,
        _ => {
            let mut query = vec![("service", service)];
            // One for each: that is how they are understood.
            query.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
            query.push(("client_id", CLIENT));
            if let Some(login) = login {
                query.push(("account", &login.user));
            }
            let uri = with_query(&uri, &query).ok_or_else(|| wrong("which is no address"))?;
            let basic = login.and_then(Login::basic);
            http.get(&Ask {
                accept: "application/json",
                authorization: basic.as_deref(),
                ..Ask::new(&uri)
            })?
        }
    };
    if !answer.status().is_success() {
        let refused = http::refusal(&uri, answer);
        return Err(match refused.kind {
            Kind::Denied => denied(door, &refused.text),
            _ => refused,
        });
    }
    let asked = Instant::now();
    let body = http.document(&uri, answer, ANSWER_MAX)?;
    let answer: Answer =
        serde_json::from_slice(&body).map_err(|_| wrong("which answers with no token"))?;
    let token = answer.token.or(answer.access_token).filter(|token| is_plain(token));
    let token = token.ok_or_else(|| wrong("which answers with no token"))?;
    let lifetime = Duration::from_secs(answer.expires_in.unwrap_or(LIFETIME).clamp(LIFETIME, 3600));
    let until = asked.checked_add(lifetime.saturating_sub(MARGIN));
    Ok(Access { value: Some(format!("Bearer {token}")), until })
}

/// Whether it can stand in a header.
fn is_plain(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic())
}

/// Nobody lets us in: what to do about it.
fn denied(door: &Door<'_>, why: &str) -> Failure {
    let cure = match door.login {
        Some(login) => wrong_login(login),
        None => format!("put a login for it into {}", door.http.settings.credentials.display()),
    };
    // What `why` holds of others' words is clean, and cuts off nothing of ours.
    Failure::new(Kind::Denied, format!("{} does not let us in: {why}; {cure}", door.authority))
}

/// What may be wrong with a login that was refused.
pub fn wrong_login(login: &Login) -> String {
    let what = match login.secret {
        Secret::Password(_) => "password",
        Secret::Identity(_) => "token",
    };
    match login.user.as_str() {
        "" => format!("its {what} is wrong, or lacks the right"),
        user => {
            format!("user `{}` or its {what} is wrong, or lacks the right", failure::clean(user))
        }
    }
}

/// Whether two servers are one owner's: the same name, or one below the other's domain, which has
/// to be more than a single word.
fn belongs(registry: &str, realm: &str) -> bool {
    let (registry, realm) = (host_of(registry), host_of(realm));
    let is_address = |host: &str| host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
    if registry == realm {
        return true;
    }
    if is_address(registry) || is_address(realm) {
        return false;
    }
    let domain = |host: &str| {
        let above = host.split_once('.').map(|(_, above)| above.to_owned());
        above.filter(|above| above.contains('.')).unwrap_or_else(|| host.to_owned())
    };
    let domain = domain(registry);
    domain.contains('.')
        && (realm == domain || realm.strip_suffix(&domain).is_some_and(|it| it.ends_with('.')))
}

/// The address with a query after its own.
fn with_query(uri: &Uri, query: &[(&str, &str)]) -> Option<Uri> {
    let query: Vec<String> =
        query.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    let joint = if uri.query().is_some() { '&' } else { '?' };
    format!("{uri}{joint}{}", query.join("&")).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_go_to_servers_of_the_registrys_owner_only() {
        let yes = [
            ("registry-1.docker.io", "auth.docker.io"),
            ("registry.gitlab.com", "gitlab.com"),
            ("ghcr.io", "ghcr.io"),
            ("reg.lan:5000", "reg.lan:5001"),
            ("a.b.example.com", "auth.b.example.com"),
            ("127.0.0.1:5000", "127.0.0.1:80"),
            ("ghcr.io", "auth.ghcr.io"),
        ];
        let no = [
            ("registry-1.docker.io", "evil.io"),
            ("reg.lan", "other.lan"),
            ("ghcr.io", "notghcr.io"),
            ("10.0.0.1", "10.0.0.2"),
            ("localhost", "evil.localhost.com"),
            ("a.b.example.com", "example.com.evil.org"),
        ];
        assert!(yes.iter().all(|(registry, realm)| belongs(registry, realm)));
        for (registry, realm) in no {
            assert!(!belongs(registry, realm), "{registry} {realm}");
        }
    }

    /// ghcr.io names a placeholder at `/v2/`.
    #[test]
    fn a_token_is_for_the_repository_whatever_the_door_says() {
        let http = Http::new(Default::default(), Default::default());
        let text = r#"Bearer realm="x",scope="repository:user/image:pull repository:a/b:pull""#;
        let challenge = &super::super::challenge::parse(text)[0];
        let of = |is_about_us| {
            let (http, authority, repository) = (&http, "ghcr.io", "a/b");
            let door =
                Door { http, authority, is_https: true, repository, is_about_us, login: None };
            scopes(&door, challenge)
        };
        assert_eq!(of(false), ["repository:a/b:pull"]);
        assert_eq!(of(true), ["repository:a/b:pull", "repository:user/image:pull"]);
    }

    #[test]
    fn queries_are_escaped() {
        let uri: Uri = "https://a.lan/token?x=1".parse().expect("uri");
        let query = [("service", "a b&c"), ("scope", "repository:x/y:pull,push")];
        let uri = with_query(&uri, &query).expect("uri").to_string();
        assert_eq!(
            uri,
            "https://a.lan/token?x=1&service=a%20b%26c&scope=repository%3Ax%2Fy%3Apull%2Cpush"
        );
    }

    #[test]
    fn a_token_is_good_until_its_time() {
        assert_eq!(Access::default().value(), None);
        let one = |until| Access { value: Some("Bearer x".into()), until };
        assert_eq!(one(None).value().as_deref(), Some("Bearer x"));
        assert_eq!(one(Some(Instant::now())).value(), None);
        assert!(one(Instant::now().checked_add(LONG)).value().is_some());
    }

    const LONG: Duration = Duration::from_secs(600);
}
