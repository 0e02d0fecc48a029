//! `rootfs/<stack>/rootfs.toml`: what a stack is made of.

use serde::Deserialize;

/// One stack.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Where the bulk of the files comes from, with what only that source knows.
    pub source: Source,
    /// Time of every file, in seconds since 1970: the same files make the same bytes.
    pub epoch: u64,
    /// Of zstd, 1 to 19.
    pub level: i32,
    /// Paths that are left out with all below them.
    #[serde(default)]
    pub drop: Vec<String>,
    /// File names that stay even below a dropped path.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Directories that must be there, with their parents.
    #[serde(default, rename = "directory")]
    pub directories: Vec<Directory>,
    /// Users to add; each gets its home and a group of the same name and number.
    #[serde(default, rename = "user")]
    pub users: Vec<User>,
}

/// Where files come from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Source {
    /// One static program and a link for each of its applets.
    Busybox {
        /// The Debian package that holds the program.
        package: String,
    },
    /// A small Debian.
    Debootstrap {
        /// Its release.
        suite: String,
        /// Beyond the essential ones.
        packages: Vec<String>,
        /// Locales to compile.
        #[serde(default)]
        locales: Vec<String>,
    },
    /// Files of Debian packages; none of their scripts is run.
    Packages {
        /// Which.
        packages: Vec<String>,
        /// Of what they depend on, what begins so comes as well.
        #[serde(default = "libraries")]
        follow: Vec<String>,
        /// But not what begins so.
        #[serde(default)]
        without: Vec<String>,
    },
}

fn libraries() -> Vec<String> {
    vec!["lib".into(), "zlib1g".into()]
}

/// One directory of root's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// From the root, without a leading slash.
    pub path: String,
    /// Permission bits.
    #[serde(default = "open_directory")]
    pub mode: u32,
}

fn open_directory() -> u32 {
    0o755
}

/// One user.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Of the user and of the group.
    pub name: String,
    /// Of the user and of the group.
    pub id: u32,
    /// Absolute.
    pub home: String,
    /// Absolute.
    pub shell: String,
}

impl Recipe {
    /// Reads and checks a recipe.
    pub fn parse(text: &str) -> Result<Recipe, String> {
        let recipe: Recipe = toml::from_str(text).map_err(|err| err.to_string())?;
        if !(1..=19).contains(&recipe.level) {
            return Err(format!("level {} is out of range (1..=19)", recipe.level));
        }
        let inside = recipe.drop.iter().chain(recipe.directories.iter().map(|dir| &dir.path));
        for path in inside {
            let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
            if !path.split('/').all(plain) {
                return Err(format!("`{path}` is no path inside the root, such as `usr/share`"));
            }
        }
        Ok(recipe)
    }

    /// The path is left out.
    pub fn drops(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        let below = |drop: &String| {
            path.strip_prefix(drop.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        self.drop.iter().any(below) && !self.keep.iter().any(|keep| keep == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "epoch = 1\nlevel = 3\nsource = { kind = \"busybox\", package = \"b\" }\n";

    #[test]
    fn the_recipes_of_the_repository_are_good() {
        for stack in ["tiny", "edgefs"].iter().chain(&crate::rootfs::SOFTWARE) {
            let file = crate::host::top().join("rootfs").join(stack).join("rootfs.toml");
            Recipe::parse(&std::fs::read_to_string(file).expect("it is there")).expect(stack);
        }
    }

    #[test]
    fn mistakes_are_refused() {
        assert!(Recipe::parse(GOOD).is_ok());
        for bad in ["levl = 3", "drop = [\"/usr\"]", "drop = [\"a/../b\"]"] {
            assert!(Recipe::parse(&format!("{GOOD}{bad}")).is_err(), "{bad}");
        }
        assert!(Recipe::parse(&GOOD.replace("level = 3", "level = 30")).is_err());
        assert!(Recipe::parse(&GOOD.replace("busybox", "alpine")).is_err());
    }

    #[test]
    fn a_dropped_folder_stays_empty_but_for_kept_names() {
        let recipe =
            Recipe::parse(&format!("{GOOD}drop = [\"usr/share/doc\"]\nkeep = [\"copyright\"]"))
                .expect("good");
        assert!(recipe.drops("usr/share/doc/bash/README"));
        assert!(!recipe.drops("usr/share/doc/bash/copyright"));
        assert!(!recipe.drops("usr/share/doc"));
        assert!(!recipe.drops("usr/share/docs/x"));
    }
}
