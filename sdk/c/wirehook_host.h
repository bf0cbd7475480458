/* What a plugin is given by the host: by imports in a component, by wirehook_test.c natively. */
#ifndef WIREHOOK_HOST_H
#define WIREHOOK_HOST_H

#include "wirehook.h"

void wh_host_log(wh_level level, wh_str message);
wh_str wh_host_config_get(wh_str name);
const wh_pair *wh_host_config_all(size_t *count);

#endif
