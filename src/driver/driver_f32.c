/* The driver for float. */
#define FL_DOUBLE 0
#include "driver/driver.h"
