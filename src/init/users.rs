//! Who a process runs as: the container's own passwd and group files, read as plain text.
//!
//! The files are the container's and say what they like; the worst they can do is to name another
//! id of the same container. Text in, value out.

use crate::unit::IdMap;

/// Users, groups and ids of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Name, or the number when it has none.
    pub name: String,
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Supplementary groups; none when the group was given explicitly.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

/// The last id of a container with Garden's map.
const WITH_GARDENS: u32 = IdMap::NOBODYS - 1;

/// Supplementary groups of one user.
const GROUPS_MAX: usize = 1024;

/// Finds `wanted`: `name`, `uid`, `uid:gid`, `name:group`. What looks like a number is one, even
/// if a line of passwd has it as a name. A number without a line has group 0 and home `/`; `root`
/// always exists. Ids above `last`, the container's highest, are refused.
pub fn find(wanted: &str, passwd: &[u8], group: &[u8], last: u32) -> Result<User, String> {
    let (who, of) = match wanted.split_once(':') {
        Some((who, of)) => (who, Some(of)),
        None => (wanted, None),
    };
    let line = match reference(who, "user", last)? {
        Reference::Id(uid) => lines(passwd, 6).find(|line| line[2] == uid.to_string()),
        Reference::Name(name) => lines(passwd, 6).find(|line| line[0] == name),
    };
    let mut user = match (line, reference(who, "user", last)?) {
        (Some(line), _) => User {
            name: line[0].clone(),
            uid: id(&line[2], "user", &line[0], last)?,
            gid: id(&line[3], "group of user", &line[0], last)?,
            groups: groups_of(&line[0], group, last)?,
            home: if line[5].is_empty() { "/".into() } else { line[5].clone() },
        },
        (None, Reference::Id(uid)) => {
            User { name: uid.to_string(), uid, gid: 0, groups: Vec::new(), home: "/".into() }
        }
        (None, Reference::Name("root")) => {
            User { name: "root".into(), uid: 0, gid: 0, groups: Vec::new(), home: "/root".into() }
        }
        (None, Reference::Name(name)) => {
            return Err(format!(
                "user `{name}` is not in the container's /etc/passwd; write one that is, or a number"
            ));
        }
    };
    if let Some(of) = of {
        user.gid = match reference(of, "group", last)? {
            Reference::Id(gid) => gid,
            Reference::Name(name) => {
                let line = lines(group, 3).find(|line| line[0] == name);
                let line = line.ok_or_else(|| {
                    format!(
                        "group `{name}` is not in the container's /etc/group; write one that is, or a \
                         number"
                    )
                })?;
                id(&line[2], "group", name, last)?
            }
        };
        user.groups.clear();
    }
    Ok(user)
}

/// One side of a user text.
enum Reference<'a> {
    /// A number.
    Id(u32),
    /// A name.
    Name(&'a str),
}

/// Reads one side of a user text.
fn reference<'a>(text: &'a str, what: &str, last: u32) -> Result<Reference<'a>, String> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return id(text, what, text, last).map(Reference::Id);
    }
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-$".contains(&b));
    if !first || !rest || text.len() > 256 {
        return Err(format!(
            "`{}` is no {what}: write a name or a number from 0 to {last}",
            text.escape_default()
        ));
    }
    Ok(Reference::Name(text))
}

/// A plain decimal number up to `last`: no sign, space, prefix or leading zero.
fn id(text: &str, what: &str, name: &str, last: u32) -> Result<u32, String> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    match text.parse::<u32>() {
        Ok(id) if plain && id <= last => Ok(id),
        Ok(id) if plain && last < WITH_GARDENS && id <= WITH_GARDENS => Err(format!(
            "{what} `{}` has id {id}, but this container's go from 0 to {last}; those of Garden's \
             clients go to {WITH_GARDENS} when they are made with `id_mapping = \"garden\"`",
            name.escape_default()
        )),
        _ if text == name => Err(format!(
            "{what} `{}` is no id; write a number from 0 to {last}",
            name.chars().take(20).collect::<String>().escape_default()
        )),
        _ => Err(format!(
            "{what} `{}` has no id from 0 to {last}, but `{}`",
            name.escape_default(),
            text.chars().take(20).collect::<String>().escape_default()
        )),
    }
}

/// The groups that list `name` as a member.
fn groups_of(name: &str, group: &[u8], last: u32) -> Result<Vec<u32>, String> {
    let mut found = Vec::new();
    for line in lines(group, 4).filter(|line| line[3].split(',').any(|member| member == name)) {
        let gid = id(&line[2], "group", &line[0], last)?;
        if !found.contains(&gid) {
            found.push(gid);
        }
        if found.len() > GROUPS_MAX {
            return Err(format!("user `{name}` is in more than {GROUPS_MAX} groups"));
        }
    }
    Ok(found)
}

/// The lines that have at least `count` fields, split at colons. Bytes that are not UTF-8 become
/// replacement characters, which no reference has.
fn lines(file: &[u8], count: usize) -> impl Iterator<Item = Vec<String>> {
    file.split(|byte| *byte == b'\n').filter_map(move |line| {
        let fields: Vec<String> =
            String::from_utf8_lossy(line).split(':').map(str::to_owned).collect();
        (fields.len() >= count && !fields[0].is_empty()).then_some(fields)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\n# nonsense\n1000:x:0:0::/evil:\n\
        vcap:x:2000:2000:vcap:/home/vcap:/bin/sh\nbig:x:70000:0::/:\nneg:x:-1:0::/:\n\
        hex:x:0x0:0::/:\nbadgroup:x:5:4294967296::/:\nempty:x:6:6:::\n0x0:x:0:0::/:\n";
    const GROUP: &[u8] =
        b"root:x:0:\nvcap:x:2000:\naudio:x:29:other,vcap\nvideo:x:44:vcap\nvideo:x:44:vcap\n\
        huge:x:70000:root2\n";

    /// User id, group id, supplementary groups, home.
    type Found = (u32, u32, &'static [u32], &'static str);

    #[test]
    fn every_form_of_a_user() {
        let table: &[(&str, Result<Found, ()>)] = &[
            ("root", Ok((0, 0, &[], "/root"))),
            ("vcap", Ok((2000, 2000, &[29, 44], "/home/vcap"))),
            ("2000", Ok((2000, 2000, &[29, 44], "/home/vcap"))),
            // A name made of digits does not catch the number.
            ("1000", Ok((1000, 0, &[], "/"))),
            ("1000:0", Ok((1000, 0, &[], "/"))),
            ("1000:2000", Ok((1000, 2000, &[], "/"))),
            ("vcap:audio", Ok((2000, 29, &[], "/home/vcap"))),
            ("vcap:30", Ok((2000, 30, &[], "/home/vcap"))),
            ("empty", Ok((6, 6, &[], "/"))),
            ("65535", Ok((65535, 0, &[], "/"))),
            ("65536", Err(())),
            ("2147483648", Err(())),
            ("4294967295", Err(())),
            ("4294967296", Err(())),
            ("18446744073709551616", Err(())),
            ("-1", Err(())),
            ("+0", Err(())),
            (" 0", Err(())),
            ("0 ", Err(())),
            ("00", Err(())),
            ("0x0", Err(())),
            ("", Err(())),
            (":", Err(())),
            (":0", Err(())),
            ("0:", Err(())),
            ("0:0:0", Err(())),
            ("0:-1", Err(())),
            ("0:4294967296", Err(())),
            ("vcap\n", Err(())),
            ("big", Err(())),
            ("neg", Err(())),
            ("hex", Err(())),
            ("badgroup", Err(())),
            ("vcap:nogroup", Err(())),
            ("vcap:huge", Err(())),
            ("nobody", Err(())),
        ];
        for (wanted, expected) in table {
            let found = find(wanted, PASSWD, GROUP, 65_535);
            let seen = found.as_ref().map(|u| (u.uid, u.gid, &*u.groups, &*u.home)).map_err(drop);
            assert_eq!(seen, *expected, "{wanted}: {found:?}");
        }
    }

    #[test]
    fn root_and_numbers_need_no_files() {
        let root = find("root", b"", b"", 65_535).expect("root");
        assert_eq!((root.uid, root.gid, &*root.home), (0, 0, "/root"));
        assert_eq!(find("7", b"", b"", 65_535).expect("number").name, "7");
    }

    #[test]
    fn ids_go_as_far_as_the_container_has_them() {
        let last = WITH_GARDENS;
        let ids = |wanted: &str| find(wanted, PASSWD, GROUP, last).map(|u| (u.uid, u.gid));
        assert_eq!(ids("1000000000"), Ok((1_000_000_000, 0)));
        assert_eq!(ids("big"), Ok((70_000, 0)));
        assert_eq!(ids("vcap:huge"), Ok((2000, 70_000)));
        assert_eq!(ids("4294967293:4294967293"), Ok((4_294_967_293, 4_294_967_293)));
        for wanted in ["4294967294", "4294967295", "4294967296", "0:4294967294", "badgroup"] {
            let why = ids(wanted).expect_err(wanted);
            let of_line = why.contains("has no id from 0 to 4294967293, but `4294967296`");
            let of_text = why.contains("` is no id; write a number from 0 to 4294967293");
            assert!(if wanted == "badgroup" { of_line } else { of_text }, "{wanted}: {why}");
        }
        let why = find("0:70000", PASSWD, GROUP, 65_535).expect_err("beyond");
        assert!(
            why.starts_with("group `70000` has id 70000, but this container's go from"),
            "{why}"
        );
        assert!(why.ends_with("`id_mapping = \"garden\"`"), "{why}");
    }
}
