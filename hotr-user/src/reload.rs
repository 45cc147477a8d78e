//! A value that follows a file: loaded, checked, and put in place at once for all readers.
//!
//! In: a function that loads the value, and says why it cannot. Out: [`Live`], which always holds a whole, valid
//! value. The former one is dropped when its last reader has let go of it.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// Loads a value or says why not.
type Load<T, E> = Box<dyn Fn() -> Result<T, E> + Send + Sync>;

/// A value that can be replaced while it is read.
///
/// ```
/// use hotr_user::reload::Live;
///
/// let path = std::env::temp_dir().join(format!("live-{}", std::process::id()));
/// std::fs::write(&path, "8080").unwrap();
/// let file = path.clone();
/// let port = Live::new(move || -> Result<u16, String> {
///     let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
///     text.trim().parse().map_err(|_| format!("{text:?} is not a port"))
/// })?;
/// assert_eq!(*port.get(), 8080);
///
/// std::fs::write(&path, "a typing error").unwrap();
/// assert!(port.reload().is_err());
/// assert_eq!(*port.get(), 8080, "the last good value stays");
///
/// std::fs::write(&path, "9090").unwrap();
/// let held = port.get();
/// port.reload()?;
/// assert_eq!((*held, *port.get()), (8080, 9090), "a reader keeps what it holds");
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), String>(())
/// ```
///
/// With [`crate::watch::Builder`], call [`Live::reload`] for every batch.
pub struct Live<T, E> {
    value: ArcSwap<T>,
    load: Load<T, E>,
}

impl<T, E> Live<T, E> {
    /// Loads the first value. `load` also validates: what it returns is put in place.
    ///
    /// # Errors
    /// That of `load`.
    pub fn new(load: impl Fn() -> Result<T, E> + Send + Sync + 'static) -> Result<Self, E> {
        let value = ArcSwap::from_pointee(load()?);
        Ok(Self { value, load: Box::new(load) })
    }

    /// The value now. It stays as it is for as long as it is held, also through a reload.
    pub fn get(&self) -> Arc<T> {
        self.value.load_full()
    }

    /// Loads the value again and replaces it in one step.
    ///
    /// # Errors
    /// That of `load`; the former value stays.
    pub fn reload(&self) -> Result<(), E> {
        self.value.store(Arc::new((self.load)()?));
        Ok(())
    }
}

impl<T: std::fmt::Debug, E> std::fmt::Debug for Live<T, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("value", &self.value).finish_non_exhaustive()
    }
}
