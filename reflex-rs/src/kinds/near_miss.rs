//! Finds the name that was probably meant.

/// Names longer than this are not compared: the work grows with the product of the lengths.
const MAX_LENGTH: usize = 64;

/// Returns the known name that differs least from `given`, if it differs in at most a third of its characters.
pub(super) fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    if given.len() > MAX_LENGTH {
        return None;
    }
    let measured = known
        .filter(|name| name.len() <= MAX_LENGTH)
        .map(|name| (strsim::osa_distance(given, name), name));
    let (distance, name) = measured.min_by_key(|(distance, _)| *distance)?;
    let allowed = (given.chars().count().max(name.chars().count()) / 3).max(1);
    (distance <= allowed && distance > 0).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn only_a_near_name_is_proposed() {
        let known = ["note", "write", "report", "github.issues"];
        let nearest = |given: &str| nearest(given, known.into_iter());
        for (given, meant) in [
            ("notes", Some("note")),
            ("wirte", Some("write")),
            ("githubissues", Some("github.issues")),
            ("nothing", None),
            ("", None),
            ("x", None),
            ("note", None),
        ] {
            assert_eq!(nearest(given).as_deref(), meant, "{given}");
        }
        assert_eq!(nearest(&"note".repeat(20)), None);
    }
}
