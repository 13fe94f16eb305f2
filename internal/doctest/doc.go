// Package doctest runs the commands of README.md and docs/ against a real `kapsel dev`, in order, as a reader would: whatever stands
// in a block that is marked sh. A block that cannot run says why after the word skip. It also looks where the links of every document lead.
package doctest
