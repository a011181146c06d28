//! Finds the name that was probably meant.

use strsim::damerau_levenshtein;

/// The place (0-based) of the candidate nearest to `name`, if one is near: a slip of the hand in
/// each three letters, or another case.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<usize> {
    let name = plain(name);
    let letters = name.chars().count();
    let slips = letters.div_ceil(3);
    let near = candidates
        .map(|candidate| damerau_levenshtein(&name, &plain(candidate)))
        .enumerate()
        .min_by_key(|(_, distance)| *distance);
    // As many slips as there are letters would make any short name of any other.
    let fits = |(_, distance): &(usize, usize)| *distance <= slips && *distance < letters;
    near.filter(fits).map(|(place, _)| place)
}

/// A name as it sounds: without case, and without what divides its words.
fn plain(name: &str) -> String {
    let letters = name.chars().filter(|sign| sign.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_name_nearly_right_finds_its_own_and_a_far_one_none() {
        let names = ["id", "customer", "customer_no", "placedAt", "z"];
        for (typed, meant) in [
            ("custmer", Some("customer")),
            ("Customer No", Some("customer_no")),
            ("placed_at", Some("placedAt")),
            ("ID", Some("id")),
            ("x", None),
            ("é", None),
            ("total", None),
            ("", None),
        ] {
            let near = nearest(typed, names.into_iter()).map(|place| names[place]);
            assert_eq!(near, meant, "{typed}");
        }
    }
}
