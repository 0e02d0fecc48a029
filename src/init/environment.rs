//! The environment of a process: what was given, and what every process has.

use super::users::User;

/// Where root's programs are.
const PATH_ROOT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where everybody else's are.
const PATH_OTHERS: &str = "/usr/local/bin:/usr/bin:/bin";

/// The variables in the order in which they were first given; a later value wins. `USER`, `HOME`
/// and `PATH` are added when absent. An empty name, a `=` in a name, or a NUL byte is an error.
pub fn complete(given: &[(String, String)], user: &User) -> Result<Vec<(String, String)>, String> {
    let mut all: Vec<(String, String)> = Vec::with_capacity(given.len() + 3);
    for (name, value) in given {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            // The value may be a secret; the name is enough to find it.
            return Err(format!("environment variable `{}` is malformed", name.escape_default()));
        }
        match all.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => known.clone_from(value),
            None => all.push((name.clone(), value.clone())),
        }
    }
    let path = if user.uid == 0 { PATH_ROOT } else { PATH_OTHERS };
    for (name, value) in [("USER", &*user.name), ("HOME", &*user.home), ("PATH", path)] {
        if !all.iter().any(|(known, _)| known == name) {
            all.push((name.into(), value.into()));
        }
    }
    Ok(all)
}

/// Files to try for program `path`: itself when it has a `/` in it, else that name in every
/// absolute directory of the environment's `PATH`.
pub fn candidates(path: &str, environment: &[(String, String)]) -> Vec<String> {
    if path.contains('/') {
        return vec![path.to_owned()];
    }
    let search = environment.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value);
    search
        .split(':')
        .filter(|dir| dir.starts_with('/'))
        .map(|dir| format!("{}/{path}", dir.trim_end_matches('/')))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn user(uid: u32) -> User {
        User { name: "u".into(), uid, gid: 0, groups: vec![], home: "/h".into() }
    }

    #[test]
    fn the_last_value_wins_and_gaps_are_filled() {
        let all = complete(&pairs(&[("A", "1"), ("HOME", "/x"), ("A", "2\n3")]), &user(0));
        let want = pairs(&[("A", "2\n3"), ("HOME", "/x"), ("USER", "u"), ("PATH", PATH_ROOT)]);
        assert_eq!(all.expect("good"), want);
        assert_eq!(complete(&[], &user(9)).expect("good")[2].1, PATH_OTHERS);
    }

    #[test]
    fn malformed_variables_are_refused_without_their_value() {
        for (name, value) in [("", "s3cret"), ("A=B", "s3cret"), ("A\0", "s3cret"), ("A", "\0")] {
            let err = complete(&pairs(&[(name, value)]), &user(0)).expect_err(name);
            assert!(!err.contains("s3cret"), "{err}");
        }
    }

    #[test]
    fn a_name_is_looked_up_in_absolute_directories_only() {
        let env = pairs(&[("PATH", "/a:b::/c/")]);
        assert_eq!(candidates("x", &env), ["/a/x", "/c/x"]);
        assert_eq!(candidates("./x", &env), ["./x"]);
        assert!(candidates("x", &[]).is_empty());
    }
}
