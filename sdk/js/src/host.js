// The host as the SDK sees it: the contract's imports in a component, the test's own in a test.
export const host = { log() {}, config: () => [], stack: (error) => error.stack ?? "" };
