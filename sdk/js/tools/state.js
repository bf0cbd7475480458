// The state of `wirehook/state` in a component. Only a plugin that imports it has this in its bundle, and the world with it.
import * as contract from "wirehook:plugin/state@0.1.0";
import { host } from "../src/host.js";
import { Refused } from "../src/state.js";

host.store = {
  get: contract.get,
  delete: contract.delete,
  set(key, value) {
    try {
      contract.set(key, value);
    } catch (error) {
      throw new Refused(String(error?.payload ?? error?.message ?? error));
    }
  },
};
export * from "../src/state.js";
