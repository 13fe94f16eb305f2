package verify_test

import (
	"fmt"
	"os"

	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// The key is not taken from the package: it was written down when the log was first used, or comes from its operator.
func ExampleVerify() {
	data, err := os.ReadFile("testdata/attempt.proof.json")
	if err != nil {
		fmt.Println(err)
		return
	}
	report, err := verify.Verify(data, verify.Options{TrustedKeys: []string{
		"log.example.com/log/1+4a5917dc+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c",
	}})
	if err != nil {
		fmt.Println("refused:", err)
		return
	}
	attempt := report.Leaf.GetAttempt()
	fmt.Println(report.Level)
	fmt.Printf("%s answered %d to attempt %d\n", attempt.GetUrl(), attempt.GetStatusCode(), attempt.GetNumber())
	fmt.Println("signed by the log at", report.HeadTime)
	// Output:
	// full proof
	// https://shop.example.com/hooks?a=1&b=<2> answered 200 to attempt 2
	// signed by the log at 2026-03-04 05:06:07 +0000 UTC
}
