use super::Report;

impl Report {
    /// As one HTML page that needs nothing else.
    #[must_use]
    pub fn to_html(&self) -> String {
        maud::html! { pre { (self) } }.into_string()
    }
}
