//! How many files and connections the process may have open. The limit that it starts with is often 1024, for the sake of
//! programs that use `select`; a server asks for what it is allowed to have.

use std::io;

/// Raises the limit to the most that the process is allowed. Returns the limit that holds then.
///
/// # Errors
/// When the system refuses; the limit is what it was.
pub fn allow_most() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid and writable for the whole call, which keeps no pointer to it.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above, and nothing is written.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_to_the_most_and_stays_there() {
        let most = allow_most().unwrap();
        assert!(most > 0);
        assert_eq!(allow_most().unwrap(), most);
    }
}
