/* The driver for double. */
#define FL_DOUBLE 1
#include "driver/driver.h"
