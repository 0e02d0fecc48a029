//! A file as the one field of a multipart form (RFC 7578). Pure.

/// What stands before and behind the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// `Content-Type` of the whole.
    pub content_type: String,
    /// Before the file.
    pub head: Vec<u8>,
    /// Behind it.
    pub tail: Vec<u8>,
}

/// The form of field `file` with a file of this name; `boundary` must not be in the file.
pub fn of_file(name: &str, boundary: &str) -> Form {
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    Form {
        content_type: format!("multipart/form-data; boundary={boundary}"),
        head: head.into_bytes(),
        tail: format!("\r\n--{boundary}--\r\n").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_one_field_between_its_boundaries() {
        let form = of_file("droplet.tgz", "b0");
        let whole = [&form.head[..], b"BYTES", &form.tail].concat();
        assert_eq!(form.content_type, "multipart/form-data; boundary=b0");
        assert_eq!(
            String::from_utf8(whole).expect("text"),
            "--b0\r\nContent-Disposition: form-data; name=\"file\"; filename=\"droplet.tgz\"\r\n\
             Content-Type: application/octet-stream\r\n\r\nBYTES\r\n--b0--\r\n"
        );
    }
}
