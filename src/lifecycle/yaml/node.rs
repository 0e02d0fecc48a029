//! A value with its places, for whoever tells people about mistakes in it; anchors and merge keys.

use super::{Parser, Value, YamlError};

/// Most that aliases may bring in, in values and bytes of their texts: a short text of aliases of
/// aliases would fill the memory otherwise.
const COPIED_MAX: usize = 1 << 20;

/// A value and where it begins; of an alias: where its anchor's does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// From 1.
    pub line: usize,
    /// The character of that line, from 1.
    pub column: usize,
    /// What it is.
    pub tree: Tree,
}

/// As [`Value`], with places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar.
    Text {
        /// What it says.
        text: String,
        /// It stands without quotes: `1` may be meant as a number.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the text; keys are unique.
    Map(Vec<Pair>),
}

/// A key of a map with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: String,
    /// Its line.
    pub line: usize,
    /// What it has.
    pub value: Node,
    /// The value has an anchor: it may only stand here for the aliases that name it.
    pub anchored: bool,
}

impl Node {
    /// The same without places.
    pub fn into_value(self) -> Value {
        match self.tree {
            Tree::Null => Value::Null,
            Tree::Text { text, .. } => Value::Text(text),
            Tree::List(items) => Value::List(items.into_iter().map(Node::into_value).collect()),
            Tree::Map(pairs) => {
                Value::Map(pairs.into_iter().map(|it| (it.key, it.value.into_value())).collect())
            }
        }
    }

    /// What this is, for a message.
    pub fn kind(&self) -> &'static str {
        match self.tree {
            Tree::Null => "nothing",
            Tree::Text { .. } => "text",
            Tree::List(_) => "a list",
            Tree::Map(_) => "a map",
        }
    }

    /// The text, when this is a scalar.
    pub fn as_text(&self) -> Option<&str> {
        match &self.tree {
            Tree::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The pairs, when this is a map.
    pub fn as_map(&self) -> Option<&[Pair]> {
        match &self.tree {
            Tree::Map(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// The value of `key`, when this is a map that has it with something in it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let found = self.as_map()?.iter().find(|pair| pair.key == key)?;
        (found.value.tree != Tree::Null).then_some(&found.value)
    }

    /// How much memory a copy takes, about.
    fn size(&self) -> usize {
        1 + match &self.tree {
            Tree::Null => 0,
            Tree::Text { text, .. } => text.len(),
            Tree::List(items) => items.iter().map(Node::size).sum(),
            Tree::Map(pairs) => pairs.iter().map(|it| it.key.len() + it.value.size()).sum(),
        }
    }
}

impl Tree {
    /// Plain text, of which some words mean nothing.
    pub(super) fn of_plain(text: String) -> Tree {
        match text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Tree::Null,
            _ => Tree::Text { text, plain: true },
        }
    }

    pub(super) fn quoted(text: String) -> Tree {
        Tree::Text { text, plain: false }
    }
}

impl Parser {
    /// A node that is the line that is read now.
    pub(super) fn here(&self, tree: Tree) -> Node {
        Node { line: self.at + 1, column: 1, tree }
    }

    /// Takes the anchor that stands at or behind `column` of the current line, if there is one.
    pub(super) fn anchor(&mut self, column: usize) -> Result<Option<String>, YamlError> {
        let line = &self.lines[self.at];
        let start = line.len() - line[column..].trim_start_matches([' ', '\t']).len();
        if !line[start..].starts_with('&') {
            return Ok(None);
        }
        let end = name_end(line, start + 1);
        let name = line[start + 1..end].to_owned();
        if name.is_empty() {
            return self.fail("`&` has no name behind it");
        }
        let blanks = " ".repeat(end - start);
        self.lines[self.at].replace_range(start..end, &blanks);
        Ok(Some(name))
    }

    /// Remembers what `anchor` stands before.
    pub(super) fn keep(&mut self, anchor: Option<String>, node: &Node) -> Result<(), YamlError> {
        let Some(name) = anchor else { return Ok(()) };
        self.pay(node)?;
        self.anchors.insert(name, node.clone());
        Ok(())
    }

    /// What the alias at `column` of the current line stands for, and the column behind it.
    pub(super) fn alias(&mut self, column: usize) -> Result<(Node, usize), YamlError> {
        let line = &self.lines[self.at];
        let end = name_end(line, column + 1);
        let name = line[column + 1..end].to_owned();
        match self.anchors.get(&name).cloned() {
            Some(node) => {
                self.pay(&node)?;
                Ok((node, end))
            }
            None => self.fail(format!("there is no anchor `&{name}` above")),
        }
    }

    fn pay(&mut self, node: &Node) -> Result<(), YamlError> {
        match self.copied.checked_add(node.size()).filter(|size| *size <= COPIED_MAX) {
            Some(size) => {
                self.copied = size;
                Ok(())
            }
            None => self.fail("anchors and aliases make more than a MiB of it"),
        }
    }

    /// The map with what `<<` brings: of maps, whose keys give way to those that are written here, and
    /// of several of them to those of an earlier one.
    pub(super) fn merged(&self, pairs: Vec<Pair>) -> Result<Tree, YamlError> {
        let is_merge = |pair: &Pair| pair.key == "<<";
        if !pairs.iter().any(is_merge) {
            return Ok(Tree::Map(pairs));
        }
        let (merges, mut pairs): (Vec<Pair>, Vec<Pair>) = pairs.into_iter().partition(is_merge);
        for merge in merges {
            let maps = match merge.value.tree {
                Tree::List(items) => items,
                _ => vec![merge.value],
            };
            for map in maps {
                let Tree::Map(below) = map.tree else {
                    let why = "`<<` takes a map, or a list of maps".to_owned();
                    return Err(YamlError { line: merge.line, why });
                };
                for pair in below {
                    if !pairs.iter().any(|it| it.key == pair.key) {
                        pairs.push(pair);
                    }
                }
            }
        }
        Ok(Tree::Map(pairs))
    }
}

/// Of each line, where the bytes stand that begin no character.
pub(super) struct Columns(Vec<Vec<usize>>);

impl Columns {
    pub(super) fn of(text: &str) -> Columns {
        let within =
            |line: &str| (0..line.len()).filter(|at| !line.is_char_boundary(*at)).collect();
        Columns(text.lines().map(within).collect())
    }

    /// Makes characters of the bytes that the places of `node`, and of all below it, count.
    pub(super) fn count(&self, node: &mut Node) {
        let before = self
            .0
            .get(node.line.wrapping_sub(1))
            .map_or(0, |within| within.partition_point(|at| *at + 1 < node.column));
        node.column -= before;
        match &mut node.tree {
            Tree::Null | Tree::Text { .. } => {}
            Tree::List(items) => items.iter_mut().for_each(|item| self.count(item)),
            Tree::Map(pairs) => pairs.iter_mut().for_each(|pair| self.count(&mut pair.value)),
        }
    }
}

/// Where the name of an anchor ends that begins at `start`.
fn name_end(line: &str, start: usize) -> usize {
    let ends = |c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']' | '{' | '}');
    line[start..].find(ends).map_or(line.len(), |at| start + at)
}
