//go:build awskms

package signer

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// openAWSKMS opens awskms:///<key id, ARN or alias/name>[?region=…]. Credentials and the region come from where AWS's tools
// take them: the environment, files, the instance. The key is of the spec ECC_NIST_EDWARDS25519, for SIGN_VERIFY, and the
// service needs kms:GetPublicKey and kms:Sign.
func openAWSKMS(ctx context.Context, text string) (Signer, error) {
	client, keyID, err := newAWSKMS(ctx, text)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cloudTimeout)
	defer cancel()
	key, err := client.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: aws.String(keyID)})
	if err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	return newRemote("AWS KMS", key.PublicKey, func(message []byte) ([]byte, error) {
		ctx, cancel := context.WithTimeout(context.Background(), cloudTimeout)
		defer cancel()
		signed, err := client.Sign(ctx, &kms.SignInput{
			KeyId: aws.String(keyID), Message: message, MessageType: types.MessageTypeRaw, SigningAlgorithm: types.SigningAlgorithmSpecEd25519Sha512,
		})
		if err != nil {
			return nil, err
		}
		return signed.Signature, nil
	})
}

// newAWSKMS makes the client that a URL asks for, and says which key.
func newAWSKMS(ctx context.Context, text string) (client *kms.Client, keyID string, err error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, "", errors.New("not a URL")
	}
	keyID = strings.TrimPrefix(u.Path, "/")
	if u.Host != "" || keyID == "" {
		return nil, "", errors.New("want awskms:///, with three slashes, and a key's id, ARN or alias")
	}
	var options []func(*config.LoadOptions) error
	if region := u.Query().Get("region"); region != "" {
		options = append(options, config.WithRegion(region))
	}
	ctx, cancel := context.WithTimeout(ctx, cloudTimeout)
	defer cancel()
	settings, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, "", fmt.Errorf("configure: %w", err)
	}
	return kms.NewFromConfig(settings), keyID, nil
}
