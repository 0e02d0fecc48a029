//! Web pages in somebody's browser: it lets them speak to ports of the box, and says so.

use super::proto::Request;
use super::server::Response;

/// The refusal of a page's request, where no page has anything to ask; `None`: it is no page's.
pub fn refusal(request: &Request) -> Option<Response> {
    let is_page = request.headers.get("origin").is_some();
    is_page.then(|| Response::text(403, "web pages do not speak to this"))
}
