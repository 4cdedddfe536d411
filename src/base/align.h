/* Where vectors may be loaded: at whole cache lines. */
#ifndef FL_BASE_ALIGN_H
#define FL_BASE_ALIGN_H

#define FL_ALIGN 64

#endif
