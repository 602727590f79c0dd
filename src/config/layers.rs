//! Puts the layers on each other, value by value, so that each mistake is found and knows where it came from.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize as _;
use toml::{
    Table, Value,
    de::{DeTable, DeValue, ValueDeserializer},
};

use super::{Config, ConfigError, Mistake, Origin, Role, check::check};

/// The lists of tables: each entry is told of by itself. Entries hold secrets, so that nothing but their names is repeated.
const ENTRIES: [&str; 2] = ["auth.issuers", "auth.publishers"];

/// The file that is read if it is there and no other is named.
const USUAL_FILE: &str = "tidings.toml";

/// What every variable begins with.
const PREFIX: &str = "TIDINGS_";

/// Where values come from, besides the defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file that was named; without one `tidings.toml` is read if it is there.
    pub file: Option<PathBuf>,
    /// The variables of the environment. Those without `TIDINGS_` before and `__` within are not looked at: Kubernetes sets
    /// `TIDINGS_PORT` and the like for a service of that name.
    pub environment: Vec<(String, String)>,
    /// What the command line sets.
    pub flags: Vec<Flag>,
    /// Whether listening beyond loopback without authentication is meant.
    pub insecure: bool,
    /// What the configuration is for.
    pub role: Role,
}

/// A value that the command line sets.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The flag, with its dashes.
    pub name: &'static str,
    /// The key it sets.
    pub key: &'static str,
    /// The value, in the form of a variable's.
    pub value: String,
}

impl Sources {
    /// The configuration that these sources make.
    ///
    /// # Errors
    /// Everything that is wrong with it, together.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let mut layers = Layers::new();
        if let Some(path) = &self.file {
            layers.read_file(path, true);
        } else {
            layers.read_file(Path::new(USUAL_FILE), false);
        }
        for (name, text) in &self.environment {
            layers.set_variable(name, text);
        }
        for flag in &self.flags {
            layers.set_text(flag.key, &flag.value, Origin::Flag { name: flag.name });
        }
        layers.finish(self.role, self.insecure)
    }
}

/// The values so far.
struct Layers {
    /// The defaults, by key: `http.listen`.
    defaults: BTreeMap<String, Value>,
    /// The values, by key; each of them fits its type.
    values: BTreeMap<String, Value>,
    origins: HashMap<String, Origin>,
    mistakes: Vec<Mistake>,
}

impl Layers {
    fn new() -> Self {
        let tree = Table::try_from(Config::default()).expect("the defaults are plain values");
        let mut defaults = BTreeMap::new();
        for (section, keys) in tree {
            let Value::Table(keys) = keys else { continue };
            for (key, value) in keys {
                defaults.insert(format!("{section}.{key}"), value);
            }
        }
        Self {
            values: defaults.clone(),
            defaults,
            origins: HashMap::new(),
            mistakes: Vec::new(),
        }
    }

    fn refuse(&mut self, origin: Origin, problem: String) {
        self.mistakes.push(Mistake { origin, problem });
    }

    fn read_file(&mut self, path: &Path, named: bool) {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !named => return,
            Err(error) => {
                return self.refuse(
                    Origin::WholeFile { path: path.to_owned() },
                    format!("the file cannot be read: {error}"),
                );
            }
        };
        let at = |offset: usize| Origin::File {
            path: path.to_owned(),
            line: text[..offset.min(text.len())].matches('\n').count() + 1,
        };
        let (document, errors) = DeTable::parse_recoverable(&text);
        for error in &errors {
            let origin = at(error.span().map_or(0, |span| span.start));
            self.refuse(origin, format!("is not TOML: {}", error.message()));
        }
        if !errors.is_empty() {
            return;
        }
        for (section, value) in document.get_ref() {
            let origin = at(section.span().start);
            let section = section.get_ref();
            let DeValue::Table(keys) = value.get_ref() else {
                let problem = match self.nearest(&format!("{section}.")) {
                    Some(known) => format!("`{section}` is not in a section: did you mean `{known}`?"),
                    None => format!("`{section}` is not in a section: keys stand below a [section]"),
                };
                self.refuse(origin, problem);
                continue;
            };
            for (key, value) in keys {
                let parsed = Value::deserialize(ValueDeserializer::from(value.clone()));
                match parsed {
                    Ok(parsed) => {
                        let key = (format!("{section}.{}", key.get_ref()), at(key.span().start));
                        let within = places(&key.0, value.get_ref(), at);
                        self.set(&key.0, parsed, key.1, within);
                    }
                    Err(error) => self.refuse(at(value.span().start), error.message().to_owned()),
                }
            }
        }
    }

    /// `TIDINGS_HTTP__LISTEN` sets `http.listen`.
    fn set_variable(&mut self, name: &str, text: &str) {
        let Some((section, key)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once("__")) else {
            return;
        };
        let key = format!("{}.{}", section.to_lowercase(), key.to_lowercase());
        self.set_text(&key, text, Origin::Variable { name: name.to_owned() });
    }

    /// Sets a value from text: as it stands where text is wanted, else as TOML; a list also with commas.
    fn set_text(&mut self, key: &str, text: &str, origin: Origin) {
        let value = match self.defaults.get(key) {
            Some(Value::String(_)) => Value::String(text.to_owned()),
            Some(Value::Array(_)) if !text.trim_start().starts_with('[') => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(Value::from)
                .collect::<Vec<_>>()
                .into(),
            _ => ValueDeserializer::parse(text)
                .and_then(Value::deserialize)
                .ok()
                .or_else(|| serde_json::from_str(text).ok())
                .unwrap_or_else(|| Value::String(text.to_owned())),
        };
        self.set(key, value, origin, Vec::new());
    }

    /// Sets a value if the key is known and the value fits it alone. `within` is where its parts came from, if that is known more exactly.
    fn set(&mut self, key: &str, value: Value, origin: Origin, within: Vec<(String, Origin)>) {
        let Some(default) = self.defaults.get(key) else {
            let problem = match self.nearest(key) {
                Some(known) => {
                    let known = in_the_form_of(&origin, known);
                    format!("`{key}` is not a setting: did you mean `{known}`?")
                }
                None => format!("`{key}` is not a setting: `tidings check-config` prints all there are"),
            };
            return self.refuse(origin, problem);
        };
        if let Err(error) = self.alone(key, value.clone()) {
            if ENTRIES.contains(&key) {
                return self.refuse_entries(key, &value, &origin, &within);
            }
            let problem = format!("`{key}`: {} (the default is {default})", error.message().trim_end());
            return self.refuse(origin, problem);
        }
        self.values.insert(key.to_owned(), value);
        // What an earlier layer had in its place is gone.
        let part = format!("{key}[");
        self.origins.retain(|known, _| !known.starts_with(&part));
        self.origins.insert(key.to_owned(), origin);
        self.origins.extend(within);
    }

    /// The tree that a value makes with nothing but defaults around it.
    fn alone(&self, key: &str, value: Value) -> Result<Config, toml::de::Error> {
        let mut alone = self.defaults.clone();
        alone.insert(key.to_owned(), value);
        typed(&alone)
    }

    /// Tells what is wrong with the entries of a list of tables: each key of each entry by itself.
    fn refuse_entries(&mut self, key: &str, value: &Value, origin: &Origin, within: &[(String, Origin)]) {
        let mut mistakes = Vec::new();
        match value {
            Value::Array(entries) => {
                for (at, entry) in entries.iter().enumerate() {
                    let place = format!("{key}[{at}]");
                    let Value::Table(fields) = entry else {
                        mistakes.push((place, "is no table: { key = \"value\", … }".to_owned()));
                        continue;
                    };
                    for (name, field) in fields {
                        let field = Table::from_iter([(name.clone(), field.clone())]);
                        if let Err(error) = self.alone(key, vec![Value::Table(field)].into()) {
                            mistakes.push((format!("{place}.{name}"), error.message().trim_end().to_owned()));
                        }
                    }
                }
            }
            _ => {
                let problem =
                    format!("is not a list of tables: [[{key}]] in the file, [{{ key = \"value\" }}] in a variable");
                mistakes.push((key.to_owned(), problem));
            }
        }
        for (place, problem) in mistakes {
            let known = within.iter().find(|(known, _)| *known == place);
            let origin = known.map_or(origin, |(_, origin)| origin).clone();
            self.refuse(origin, format!("`{place}`: {problem}"));
        }
    }

    /// The known key that is most like this one, if one is like it at all.
    fn nearest(&self, key: &str) -> Option<&str> {
        let name = |key: &str| key.rsplit_once('.').map_or(String::new(), |(_, name)| name.to_owned());
        self.defaults
            .keys()
            .map(|known| {
                // A right name in the wrong section is like it too.
                let misplaced = if !name(key).is_empty() && name(known) == name(key) {
                    0.95
                } else {
                    0.0
                };
                (strsim::jaro_winkler(known, key).max(misplaced), known)
            })
            .filter(|(likeness, _)| *likeness > 0.85)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, known)| known.as_str())
    }

    fn finish(mut self, role: Role, insecure: bool) -> Result<Config, ConfigError> {
        // What did not fit was not set: the rest is checked all the same, and all mistakes come together.
        match typed(&self.values) {
            Ok(config) => {
                let origins = &self.origins;
                let mistakes = &mut self.mistakes;
                check(&config, role, insecure, |key, problem| {
                    let origin = nearest_origin(origins, key);
                    let problem = format!("`{key}`: {problem}");
                    mistakes.push(Mistake { origin, problem });
                });
                if self.mistakes.is_empty() {
                    return Ok(config);
                }
            }
            Err(error) => self.refuse(Origin::Default, error.message().to_owned()),
        }
        self.mistakes.sort_by_key(|mistake| mistake.origin.order());
        Err(ConfigError {
            mistakes: self.mistakes,
        })
    }
}

/// Where the tables of a list and their keys stand: `auth.issuers[0]`, `auth.issuers[0].secret`.
fn places(key: &str, value: &DeValue<'_>, at: impl Fn(usize) -> Origin) -> Vec<(String, Origin)> {
    let DeValue::Array(entries) = value else {
        return Vec::new();
    };
    let mut places = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        let DeValue::Table(fields) = entry.get_ref() else {
            continue;
        };
        let place = format!("{key}[{number}]");
        for (name, _) in fields {
            places.push((format!("{place}.{}", name.get_ref()), at(name.span().start)));
        }
        places.push((place, at(entry.span().start)));
    }
    places
}

/// Where a value came from: itself, the entry that it is part of, or the whole list.
fn nearest_origin(origins: &HashMap<String, Origin>, key: &str) -> Origin {
    let mut key = key;
    loop {
        if let Some(origin) = origins.get(key) {
            return origin.clone();
        }
        let Some(end) = key.rfind(['.', '[']) else {
            return Origin::Default;
        };
        key = &key[..end];
    }
}

/// The tree that these values make.
fn typed(values: &BTreeMap<String, Value>) -> Result<Config, toml::de::Error> {
    let mut tree = Table::new();
    for (key, value) in values {
        if let Some((section, key)) = key.split_once('.')
            && let Value::Table(section) = tree.entry(section).or_insert_with(|| Table::new().into())
        {
            section.insert(key.to_owned(), value.clone());
        }
    }
    tree.try_into()
}

/// A key as the source that was wrong would write it.
fn in_the_form_of(origin: &Origin, key: &str) -> String {
    match origin {
        Origin::Variable { .. } => format!("{PREFIX}{}", key.replace('.', "__").to_uppercase()),
        _ => key.to_owned(),
    }
}
