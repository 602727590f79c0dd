//! JSON as text.

/// A JSON text without the white space between its tokens; the order of its members and the digits of its numbers stay as they are.
pub(crate) fn compact(json: &str) -> String {
    let mut compact = String::with_capacity(json.len());
    let mut in_string = false;
    let mut escaped = false;
    for c in json.chars() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if matches!(c, ' ' | '\t' | '\r' | '\n') {
            continue;
        } else {
            in_string = c == '"';
        }
        compact.push(c);
    }
    compact
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn compact_keeps_order_digits_and_strings() {
        let json = "{ \"z\" : 1.0 ,\t\"a\" : [ 1e400 , \"x \\\" y\\\\\" ] }";
        assert_eq!(compact(json), r#"{"z":1.0,"a":[1e400,"x \" y\\"]}"#);
    }

    proptest! {
        #[test]
        fn compact_means_the_same(texts in prop::collection::vec(any::<String>(), 0..5)) {
            let value = serde_json::json!({ "list": texts, "also": { "x": 1 } });
            let pretty = serde_json::to_string_pretty(&value).expect("JSON");
            prop_assert_eq!(compact(&pretty), value.to_string());
        }
    }
}
